"""Tables as they come from public sets and from offices, made small with words of our own; folders: test_layouts.py."""

from __future__ import annotations

import csv
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from xml.sax.saxutils import escape

import pandas as pd
import pytest

from trainyard.config.data import TextsConfig
from trainyard.data.load import load_dataset

Texts = Callable[..., TextsConfig]

WORDS = ["red", "green", "blue", "grey", "pale", "dark", "warm", "cold"]
TEXTS = [f"{WORDS[i % 8]} and {WORDS[i // 8]}, number {i}" for i in range(40)]
LABELS = ["sunny" if i % 2 else "rainy" for i in range(40)]


def ag_news(folder: Path) -> dict[str, object]:
    for name in ("train", "test"):
        with (folder / f"{name}.csv").open("w", newline="") as file:
            writer = csv.writer(file, quoting=csv.QUOTE_ALL)
            writer.writerows(
                (1 + (label == "sunny"), f"{text}?", text) for text, label in zip(TEXTS, LABELS, strict=True)
            )
    return {"path": folder, "text": [1, 2], "label": 0, "max_bad": 0.5}


def banking77(folder: Path) -> dict[str, object]:
    for name in ("train", "test"):
        rows = [
            {"text": f"{text} in {name}", "label": LABELS[i] == "sunny", "label_text": LABELS[i]}
            for i, text in enumerate(TEXTS)
        ]
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return {"path": folder, "label": "label_text"}


def sms_spam(folder: Path) -> dict[str, object]:
    lines = [
        f'{label}\t"{text}' if i % 9 == 0 else f'{label}\t{text} "so" it is'
        for i, (text, label) in enumerate(zip(TEXTS, LABELS, strict=True))
    ]
    (folder / "SMSSpamCollection.tsv").write_text("\n".join(lines) + "\n")
    return {"path": folder / "SMSSpamCollection.tsv", "text": 1, "label": 0}


def kaggle_spam(folder: Path) -> dict[str, object]:
    rows = [f'{label},"{text} für £5",,,' for text, label in zip(TEXTS, LABELS, strict=True)]
    (folder / "spam.csv").write_text("\r\n".join(["v1,v2,,,", *rows]), encoding="latin-1", newline="")
    return {"path": folder / "spam.csv", "text": "v2", "label": "v1"}


def label_studio(folder: Path) -> dict[str, object]:
    tasks = [{"id": i, "text": text, "sentiment": LABELS[i], "annotator": 1} for i, text in enumerate(TEXTS)]
    (folder / "project-1-at-2026.json").write_text(json.dumps(tasks))
    return {"path": folder / "project-1-at-2026.json", "label": "sentiment"}


def hub_parquet(folder: Path) -> dict[str, object]:
    (folder / "data").mkdir()
    frame = pd.DataFrame({"text": TEXTS, "label": LABELS})
    frame.to_parquet(folder / "data" / "train-00000-of-00002.parquet")
    frame.to_parquet(folder / "data" / "train-00001-of-00002.parquet")
    return {"path": f"hub:{folder}"}


def german_csv(folder: Path) -> dict[str, object]:
    lines = [f'"{text} €, schön";{label}' for text, label in zip(TEXTS, LABELS, strict=True)]
    (folder / "Mappe1.csv").write_text("\r\n".join(["Text;Klasse", *lines, ";", ";"]), encoding="cp1252", newline="")
    return {"path": folder / "Mappe1.csv", "text": "Text", "label": "Klasse"}


def excel(folder: Path) -> dict[str, object]:
    def row(number: int, *cells: str) -> str:
        written = "".join(f'<c t="inlineStr"><is><t>{escape(cell)}</t></is></c>' for cell in cells)
        return f'<row r="{number}">{written}</row>'

    rows = [row(1, "Text", "Klasse"), *(row(i + 2, text, LABELS[i]) for i, text in enumerate(TEXTS))]
    main = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
    office = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    packages = "http://schemas.openxmlformats.org/package/2006"
    files = {
        "[Content_Types].xml": f'<Types xmlns="{packages}/content-types"><Default Extension="xml" '
        'ContentType="application/xml"/><Default Extension="rels" '
        'ContentType="application/vnd.openxmlformats-package.relationships+xml"/></Types>',
        "_rels/.rels": f'<Relationships xmlns="{packages}/relationships"><Relationship Id="a" '
        f'Type="{office}/officeDocument" Target="xl/workbook.xml"/></Relationships>',
        "xl/workbook.xml": f'<workbook xmlns="{main}" xmlns:r="{office}"><sheets>'
        '<sheet name="Tabelle1" sheetId="1" r:id="b"/></sheets></workbook>',
        "xl/_rels/workbook.xml.rels": f'<Relationships xmlns="{packages}/relationships"><Relationship Id="b" '
        f'Type="{office}/worksheet" Target="worksheets/sheet1.xml"/></Relationships>',
        "xl/worksheets/sheet1.xml": f'<worksheet xmlns="{main}"><sheetData>{"".join(rows)}</sheetData></worksheet>',
    }
    with zipfile.ZipFile(folder / "Mappe1.xlsx", "w") as archive:
        for name, content in files.items():
            archive.writestr(name, f'<?xml version="1.0" encoding="UTF-8" standalone="yes"?>{content}')
    return {"path": folder / "Mappe1.xlsx", "text": "Text", "label": "Klasse"}


def pandas_tsv(folder: Path) -> dict[str, object]:
    texts = [f'{text}, "so"\tit is\n' if i % 5 == 0 else text for i, text in enumerate(TEXTS)]
    pd.DataFrame({"text": texts, "label": LABELS}).to_csv(folder / "t.tsv", sep="\t")
    return {"path": folder / "t.tsv"}


def numbered_csv(folder: Path) -> dict[str, object]:
    file = io.StringIO()
    pd.DataFrame({"text": TEXTS, "label": [None if i == 3 else LABELS[i] == "sunny" for i in range(40)]}).to_csv(file)
    (folder / "t.csv").write_text(file.getvalue())
    return {"path": folder / "t.csv", "max_bad": 0.1}


@pytest.mark.parametrize(
    "layout",
    [ag_news, banking77, sms_spam, kaggle_spam, label_studio, hub_parquet, german_csv, excel, pandas_tsv, numbered_csv],
)
def test_it_is_read_as_it_is_meant(tmp_path: Path, texts: Texts, layout: Callable[[Path], dict[str, object]]) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    settings = layout(folder)

    dataset = load_dataset(texts(str(settings.pop("path")), **settings), seed=0)

    names = {ag_news: ("1", "2"), numbered_csv: ("False", "True")}.get(layout, ("rainy", "sunny"))
    assert dataset.classes == names
    found = sorted(str(item) for split in dataset.splits.values() for item in split.items)
    assert len(found) == (39 if layout is numbered_csv else 80 if layout in (ag_news, banking77, hub_parquet) else 40)
    assert len(dataset.report.bad) == (1 if layout is numbered_csv else 0)
    assert all(any(text in item for text in TEXTS) for item in found)
