import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

from pruning.comparison.plot import plot_comparison
from pruning.comparison.report import report_of
from pruning.comparison.request import Comparison
from pruning.comparison.run import Outcome, compare
from pruning.material import Material

Made = tuple[Outcome, dict[str, Any]]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("compared")


def reported(material: Material, root: Path, **others: Any) -> Made:
    wish = {"scorers": ("random", "fisher", "wanda"), "levels": (0.3, 0.6), "seeds": 2} | others
    outcome = compare(material, root, Comparison(**wish))
    return outcome, report_of(outcome, material.base.shape)


@pytest.fixture(scope="module")
def made(material: Material, root: Path) -> Made:
    return reported(material, root)


def test_a_report_is_json_and_names_what_was_compared(made: Made) -> None:
    report = json.loads(json.dumps(made[1], allow_nan=False))
    assert report["scorers"] == ["random", "fisher", "wanda"]
    assert (report["metric"], report["seeds"], report["calibration_rows"]) == ("accuracy", 2, 32)
    assert report["evaluation_rows"] == 30


def with_values(outcome: Outcome, values: Sequence[float]) -> Outcome:
    """Return the outcome with these figures in place of its cells', in their order."""
    cells = [
        replace(cell, worth=replace(cell.worth, value=value, low=value - 0.1, high=value + 0.2, agreement=value / 2))
        for cell, value in zip(outcome.cells, values, strict=True)
    ]
    return replace(outcome, cells=tuple(cells), dense=replace(outcome.dense, value=0.9))


def test_rows_are_means_over_the_seeds_the_best_first_at_each_level(made: Made, material: Material) -> None:
    first_seed = {"random": (0.5, 0.4), "fisher": (0.8, 0.7), "wanda": (0.9, 0.6)}
    values = [value for pair in first_seed.values() for value in pair]
    outcome = with_values(made[0], [*values, *(value - 0.1 for value in values)])
    rows = report_of(outcome, material.base.shape)["rows"]
    assert [(row["sparsity"], row["scorer"], pytest.approx(row["value"])) for row in rows] == [
        (0.3, "wanda", 0.85),
        (0.3, "fisher", 0.75),
        (0.3, "random", 0.45),
        (0.6, "fisher", 0.65),
        (0.6, "wanda", 0.55),
        (0.6, "random", 0.35),
    ]
    best = rows[0]
    assert best["values"] == pytest.approx([0.9, 0.8])
    assert best["spread"] == pytest.approx(0.1 / 2**0.5)
    assert best["interval"] == pytest.approx([0.75, 1.05])
    assert best["lost"] == pytest.approx(0.05)
    assert best["agreement"] == pytest.approx(0.425)


def test_widths_are_those_of_the_masks(made: Made, material: Material) -> None:
    outcome, report = made
    (row,) = [row for row in report["rows"] if (row["scorer"], row["sparsity"]) == ("wanda", 0.6)]
    cells = [cell for cell in outcome.cells if (cell.spec.scorer, cell.spec.sparsity) == ("wanda", 0.6)]
    assert row["neurons"] == pytest.approx(
        [sum(cell.kept[2 * layer + 1].kept for cell in cells) / 2 for layer in range(material.base.shape.num_layers)]
    )
    assert row["heads"] == pytest.approx([share * material.base.shape.num_heads for share in row["kept"]["attention"]])


def test_overlaps_are_symmetric_with_ones_between_each_scorer_and_itself(made: Made) -> None:
    for overlap in made[1]["overlap"]:
        for matrix in (overlap["overall"], *overlap["layers"]):
            assert [matrix[index][index] for index in range(3)] == [1.0] * 3
            assert all(matrix[row][column] == matrix[column][row] for row in range(3) for column in range(3))
        assert all(0.0 <= shared <= 1.0 for shared in overlap["between_seeds"])
    assert made[1]["overlap"][0]["overall"][1][2] < 1.0


def test_chance_is_what_independent_masks_would_share(material: Material, root: Path) -> None:
    _, report = reported(material, root, pattern="2:4", levels=(0.5,), seeds=1)
    assert report["overlap"][0]["by_chance"] == pytest.approx(1 / 3)


def test_one_seed_has_no_spread(material: Material, root: Path) -> None:
    _, report = reported(material, root, seeds=1)
    assert {row["spread"] for row in report["rows"]} == {None}
    assert {alone for overlap in report["overlap"] for alone in overlap["between_seeds"]} == {None}


def test_widths_are_given_for_smaller_matrices_alone(material: Material, root: Path) -> None:
    _, report = reported(material, root, pattern="unstructured", seeds=1)
    for row in report["rows"]:
        assert row["heads"] is None and row["neurons"] is None
        assert len(row["kept"]["ffn"]) == material.base.shape.num_layers


@pytest.mark.parametrize(
    "others",
    [
        {"seeds": 1, "levels": (0.5,)},
        {"recovers": ("none", "reconstruct", "sequential"), "levels": (0.2, 0.3, 0.5, 0.6)},
        {"pattern": "unstructured"},
    ],
    ids=["one level", "three recoveries", "single weights"],
)
def test_a_comparison_becomes_a_png_that_names_every_scorer_and_level(
    material: Material, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, others: dict[str, Any]
) -> None:
    figures: list[Figure] = []
    save = Figure.savefig

    def saving(figure: Figure, path: Path) -> None:
        figures.append(figure)
        save(figure, path)

    monkeypatch.setattr(Figure, "savefig", saving)
    _, report = reported(material, root, **others)
    plot_comparison(report, tmp_path / "compared.png", "tiny")
    assert (tmp_path / "compared.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    lines, *maps = figures[0].subfigs
    assert len(lines.axes) == len({row["recover"] for row in report["rows"]})
    legend = lines.axes[-1].get_legend()
    assert legend is not None
    named = " ".join(text.get_text() for text in legend.get_texts())
    assert all(scorer in named for scorer in report["scorers"])
    for part in maps:
        titles = [axes.get_title() for axes in part.axes if axes.get_title()]
        assert titles == [f"sparsity {level:g}" for level in report["levels"]]
