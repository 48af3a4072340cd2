import multiprocessing
import pickle

from peft.utils import PeftType

from llama_adapter import ZeroInitConfig
from llama_adapter.adapters.peft_type import ZERO_INIT, add_peft_type


def test_the_member_behaves_like_any_other():
    assert PeftType("ZERO_INIT") is PeftType.ZERO_INIT is ZERO_INIT
    assert ZERO_INIT in list(PeftType)
    assert ZERO_INIT == "ZERO_INIT"
    assert pickle.loads(pickle.dumps(ZERO_INIT)) is ZERO_INIT


def test_adding_twice_adds_once():
    count = len(PeftType)
    assert add_peft_type("ZERO_INIT") is ZERO_INIT
    assert add_peft_type("LORA") is PeftType.LORA
    assert len(PeftType) == count


def _length_in_worker(config):
    return config.prompt_length, config.peft_type.value


def test_a_config_reaches_a_spawned_worker():
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(_length_in_worker, (ZeroInitConfig(prompt_length=7),)) == (7, "ZERO_INIT")
