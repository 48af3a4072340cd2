"""The one private touch of PEFT: its enum of methods is closed, so a member is added to it.

Everything else goes through PEFT's public registration. Adding is idempotent, since spawned workers import
this anew.
"""

from peft.utils import PeftType

NAME = "ZERO_INIT"


def add_peft_type(name: str) -> PeftType:
    """The member ``name`` of PEFT's enum of methods, added if it is not there."""
    if name in PeftType.__members__:
        return PeftType[name]
    member = str.__new__(PeftType, name)
    member._name_ = name
    member._value_ = name
    member._sort_order_ = len(PeftType.__members__)  # type: ignore[attr-defined]
    PeftType._member_names_.append(name)
    PeftType._member_map_[name] = member
    PeftType._value2member_map_[name] = member
    type.__setattr__(PeftType, name, member)
    return member


ZERO_INIT = add_peft_type(NAME)
