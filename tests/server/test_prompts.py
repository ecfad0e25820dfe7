"""Variables of registered prompts: plain replacement, once, and nothing else."""

import pytest

from backend.errors import RequestError
from backend.server.prompts import fill


def test_each_name_is_replaced_once() -> None:
    assert fill("{{a}} and {{ b }}, {{a}}", {"a": "{{b}}", "b": "two"}) == "{{b}} and two, {{b}}"
    assert fill("no variables, {not} {{}} {{1x}}", None) == "no variables, {not} {{}} {{1x}}"
    assert fill("{{a}}", {"a": r"\\1 \\g<0>"}) == r"\\1 \\g<0>"


@pytest.mark.parametrize(
    ("variables", "param"),
    [
        ({}, "prompt.variables.name"),
        ({"name": 3}, "prompt.variables.name"),
        ({"name": "x", "y": "z"}, "prompt.variables"),
    ],
)
def test_what_does_not_fit_is_named(variables: dict[str, object], param: str) -> None:
    with pytest.raises(RequestError) as refused:
        fill("Hello {{name}}", variables)
    assert refused.value.param == param
