"""README.md and BUILD_NOTES.md agree with the code, the result files and the network."""

import importlib
import inspect
import re
import textwrap

import pytest
from conftest import ROOT

from core.models import road_unet
from experiments import draw_network
from experiments.results import tables

README = (ROOT / "README.md").read_text(encoding="utf-8")
NOTES = (ROOT / "BUILD_NOTES.md").read_text(encoding="utf-8")


def between(text, start, end):
    return text.partition(start)[2].partition(end)[0]


def test_the_results_tables_equal_those_made_from_the_result_files():
    found = tables.groups()
    for text, table in ((README, tables.articles_table(found)), (NOTES, tables.groups_table(found))):
        assert between(text, "<!-- results -->\n", "<!-- end of results -->") == table, (
            "run: python -m experiments.results --write"
        )


QUOTES = re.findall(r"<!-- quoted from (\S+)\.(\w+) -->\n```python\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize("module, function, quote", QUOTES, ids=[quote[1] for quote in QUOTES])
def test_quoted_code_equals_the_source(module, function, quote):
    source = inspect.getsource(getattr(importlib.import_module(module), function))
    assert any(textwrap.indent(quote, " " * depth) in source for depth in (0, 4, 8))


def test_the_forward_pass_and_the_training_step_are_quoted():
    assert {quote[1] for quote in QUOTES} == {"forward", "make_train_step"}


def test_the_diagram_equals_the_one_drawn_from_the_network():
    maps = draw_network.feature_maps(road_unet.forward, road_unet.init_weights(seed=0), 128)
    assert draw_network.svg(maps) == (ROOT / "experiments/pictures/road_unet.svg").read_text()


@pytest.mark.parametrize("text", [README, NOTES], ids=["README", "BUILD_NOTES"])
def test_named_files_and_commands_exist(text):
    links = re.findall(r"\]\(((?!http|#)[^)]+)\)", text)
    for path in links + re.findall(r"`((?:core|tests|experiments)/[\w/]+\.\w+)`", text):
        assert "NAME" in path or "GROUP" in path or (ROOT / path).exists(), path
    for module in re.findall(r"python -m\s+(experiments\.\w+)", text):
        assert importlib.util.find_spec(module.replace("NAME", "cityscape_road")), module


def test_no_module_imports_from_a_higher_layer():
    layers = re.search(r"Code layers, top first: (.*?)\.", README)[1].split("; ")
    level = {name: number for number, layer in enumerate(layers) for name in layer.split(", ")}
    assert len(level) == 9

    def level_of(path):  # None for the modules that README assigns to no layer, such as core/weights.py
        return level.get(path[0] if path[0] == "experiments" else path[1])

    for file in [*ROOT.glob("core/**/*.py"), *ROOT.glob("experiments/**/*.py")]:
        own = level_of([part.removesuffix(".py") for part in file.relative_to(ROOT).parts])
        found = re.findall(r"^ *from (core|experiments)([\w.]*) import \(?([^)\n]+)", file.read_text(), re.M)
        for package, rest, names in found:
            for name in names.split(","):
                imported = level_of([package, *rest.split(".")[1:], name.strip()])
                assert own is None or imported is None or imported >= own, (file, package, rest, name)


def test_documents_stay_within_their_line_limits():
    """A new row of results may need shorter text elsewhere in the document."""
    assert len(README.splitlines()) <= 180 and len(NOTES.splitlines()) <= 350
