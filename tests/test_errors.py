from llama_adapter import UserError


def test_wrong_input_is_a_value_error():
    assert issubclass(UserError, ValueError)
