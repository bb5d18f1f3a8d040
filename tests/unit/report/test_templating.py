import pytest
from jinja2 import UndefinedError

from tag2mask.report.templating import make_environment


def test_values_are_escaped_and_missing_ones_are_errors():
    template = make_environment().from_string("{{ name }}")
    assert template.render(name="<b>") == "&lt;b&gt;"
    with pytest.raises(UndefinedError):
        template.render()
