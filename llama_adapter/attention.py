"""The one seam into transformers: attention functions that add a layer's gated prompts to their output.

transformers calls every attention layer's kernel through a registry of functions. Each registered function is
decorated once, in place: a module without prompts gets the very output of the undecorated function, a module
that carries a ``PromptBranch`` under the name ``PROMPT_BRANCH`` gets that output plus the branch's. Nothing
travels through keyword arguments, so models that drop them on the way down need no special case.

During generation nothing about prompts changes from token to token. What a branch computes from weights
alone is kept on the generation's own cache object, beside the keys and values of the tokens: it lives as long
as they do, and two generations at once do not see each other's.

"eager" is no registry key but a function of each modeling file, and files differ; so the function is
decorated in the globals of the file whose model is adapted, and no other file notices.

The danger of any such seam is the adapter that silently does nothing: an attention path that never reaches a
decorated function. So a module that carries prompts becomes an instance of a subclass of its own class, whose
call checks afterwards that they were added, and otherwise names the layer and the cause. Two forward hooks
would do the same, but with them torch takes a longer way into the module, which a decoding step can feel.

This file knows neither PEFT nor how a branch computes its output.

Dimensions: B batch, H query heads, T query positions, D head size.
"""

import functools
import inspect
import threading
from collections.abc import Callable
from typing import Any, Protocol, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.cache_utils import Cache
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

PROMPT_BRANCH = "prompt_attention"
"""Name of the child module by which an attention module carries its prompts."""

DECORATED_KEYS = ("sdpa", "flex_attention", "flash_attention_2", "flash_attention_3", "flash_attention_4")
"""Registry keys decorated at import; the key of an adapted model is decorated too if it came later."""

AttentionFunction = Callable[..., tuple[Tensor, Tensor | None]]

Memory = dict[Any, Any]
"""What branches keep for one generation."""

_MEMORY = "prompt_attention_memory"
"""Attribute of a transformers cache that holds a ``Memory``."""

_current = threading.local()
"""Of this thread, as models may serve several: ``branch`` that ran last, ``memory`` of the running pass."""


class PromptBranch(Protocol):
    """What the seam asks of the module that holds a layer's prompts."""

    layer_name: str
    """Path of the attention module in the model, for messages."""

    def has_active_prompts(self) -> bool:
        """Whether this forward pass should add anything."""

    def attend(
        self,
        attention: nn.Module,
        query: Float[Tensor, "B H T D"],
        scaling: float | None,
        softcap: float | None,
        memory: Memory | None,
    ) -> Float[Tensor, "B T H D"] | None:
        """Sum of the gated prompt attentions of all active adapters; None where none acts.

        What depends on weights alone may be kept in ``memory``; where that is None, gradients may be wanted.
        """


def add_prompts(base: AttentionFunction) -> AttentionFunction:
    """Decorate an attention function of transformers so that it adds the calling module's prompts.

    The returned function has the signature of ``base``. A module without a prompt branch gets ``base``'s
    output itself.

    Args:
        base: takes ``(module, query, key, value, attention_mask, ...)`` and returns the attention output
            (B, T, H, D) and the attention weights or None.
    """

    @functools.wraps(base)
    def attention(
        module: nn.Module, query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor | None]:
        """What ``base`` returns, prompts added: query (B, H, T, D) -> output (B, T, H, D) and weights."""
        output, weights = base(module, query, key, value, *args, **kwargs)
        branch: Any = module._modules.get(PROMPT_BRANCH)
        if branch is None:
            return output, weights
        _current.branch = branch
        memory = getattr(_current, "memory", None)
        prompted = branch.attend(module, query, kwargs.get("scaling"), kwargs.get("softcap"), memory)
        # Not in place: fused kernels save their output for the backward pass.
        return (output if prompted is None else output + prompted), weights

    attention.adds_prompts = True  # type: ignore[attr-defined]
    return attention


def decorate_key(key: str) -> None:
    """Decorate the registered attention function ``key`` unless it is decorated or not registered."""
    registered = ALL_ATTENTION_FUNCTIONS.get(key)
    if registered is None or _adds_prompts(registered):
        return
    is_shared = AttentionInterface().get(key) is registered
    if is_shared:
        AttentionInterface.register(key, add_prompts(registered))
    else:  # put over the registered one by item assignment, which wins
        ALL_ATTENTION_FUNCTIONS[key] = add_prompts(registered)


def decorate_eager(module_class: type[nn.Module]) -> None:
    """Decorate the eager attention function of the file that defines ``module_class``'s forward.

    The function is looked up the way the forward does it: by a global name ending in
    ``eager_attention_forward``.
    """
    forward = inspect.unwrap(module_class.forward)
    for name in forward.__code__.co_names:
        function = forward.__globals__.get(name)
        if name.endswith("eager_attention_forward") and function and not _adds_prompts(function):
            forward.__globals__[name] = add_prompts(function)


def uses_attention_interface(module: nn.Module) -> bool:
    """Whether the module's forward picks its kernel from transformers' registry of attention functions."""
    code = getattr(inspect.unwrap(type(module).forward), "__code__", None)
    return code is not None and "ALL_ATTENTION_FUNCTIONS" in code.co_names


def carry_prompts(attention: nn.Module, branch: nn.Module) -> None:
    """Attach ``branch`` to an attention module and make sure that its kernel will see it.

    Args:
        attention: module whose forward calls transformers' attention interface.
        branch: a ``PromptBranch``.
    """
    decorate_eager(type(attention))
    key = getattr(getattr(attention, "config", None), "_attn_implementation", None)
    if key is not None:
        decorate_key(key)
    attention.add_module(PROMPT_BRANCH, branch)
    if not isinstance(attention, _CarriesPrompts):
        own: Any = type(attention)  # mypy takes the class of a module for unhashable
        attention.__class__ = _carrying(own)


def drop_prompts(attention: nn.Module) -> None:
    """Undo ``carry_prompts``: the module is again as it was."""
    delattr(attention, PROMPT_BRANCH)
    attention.__class__ = _without_prompts(type(attention))


class _CarriesPrompts(nn.Module):
    """What an attention module is in addition while it carries prompts."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The module's own call, then a look at whether its prompts were added.

        Raises:
            RuntimeError: no decorated attention function ran; names the layer, the active key and what to do.
        """
        # Whatever ran before, an interrupted pass included, says nothing about this one.
        _current.branch = None
        # A compiled pass gets no memory: it computes from the weights that it was given.
        keeps = not (torch.is_grad_enabled() or torch.compiler.is_compiling())
        _current.memory = _memory(args, kwargs) if keeps else None
        output = super().__call__(*args, **kwargs)
        branch: Any = self._modules.get(PROMPT_BRANCH)
        if _current.branch is not branch and branch.has_active_prompts():
            cause, remedy = _explain_no_op(self)
            raise RuntimeError(f"The prompts of {branch.layer_name!r} had no effect: {cause}. Use {remedy}.")
        return output

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Copies and pickles name the module's own class, since this one is made while the program runs."""
        return _new_carrying, (_without_prompts(type(self)),), self.__getstate__()


@functools.cache
def _carrying(module_class: type[Any]) -> type[Any]:
    """The subclass of an attention class whose modules carry prompts; it goes by the same name."""
    names = {name: getattr(module_class, name) for name in ("__module__", "__qualname__", "__doc__")}
    return type(module_class.__name__, (_CarriesPrompts, module_class), names)


def _without_prompts(carrying: type[nn.Module]) -> type[nn.Module]:
    """The class that ``_carrying`` was given."""
    return carrying.__mro__[carrying.__mro__.index(_CarriesPrompts) + 1]


def _new_carrying(module_class: Any) -> nn.Module:
    """A module that carries prompts, still without content."""
    return cast("nn.Module", nn.Module.__new__(_carrying(module_class)))


def _memory(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Memory | None:
    """The memory of the generation that an attention module runs in; None outside."""
    cache: Any = kwargs.get("past_key_values")  # its usual place, looked at first: this runs for every token
    if not isinstance(cache, Cache):
        cache = next((value for value in (*args, *kwargs.values()) if isinstance(value, Cache)), None)
        if cache is None:
            return None
    return cast("Memory", cache.__dict__.setdefault(_MEMORY, {}))


def _explain_no_op(attention: nn.Module) -> tuple[str, str]:
    """Why the prompts of a layer had no effect, and what to use."""
    key = getattr(getattr(attention, "config", None), "_attn_implementation", None)
    function = ALL_ATTENTION_FUNCTIONS.get(key) if key else None
    if function is not None and not _adds_prompts(function):
        return (
            f"the attention function {key!r} was registered after the adapter was attached",
            f"llama_adapter.attention.decorate_key({key!r}) after registering it",
        )
    return (
        f"{type(attention).__name__} with attn_implementation={key!r} bypassed the attention interface",
        "model.set_attn_implementation('sdpa'), or unload the adapter",
    )


def _adds_prompts(function: AttentionFunction) -> bool:
    """Whether an attention function is decorated already."""
    return getattr(function, "adds_prompts", False)


for _key in DECORATED_KEYS:
    decorate_key(_key)
