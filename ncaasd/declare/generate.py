"""Write what is made from the models: `python -m ncaasd.declare.generate [--check]`.

config.example.yaml, docs/config.md, docs/manifest.md, docs/schemas/*.json. With --check nothing is written: the exit
code is 1 when a file is not what the models say.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from ncaasd.declare import example, pages
from ncaasd.declare.manifest import Manifest

SCHEMA = "docs/schemas/config.schema.json"


def files() -> dict[str, str]:
    """Every generated file's text, by its path in the repository."""
    schemas = {
        SCHEMA: example.config_schema(),
        "docs/schemas/manifest.schema.json": example.schema_of(Manifest, "ncaasd manifest"),
    }
    return {
        "config.example.yaml": example.config_example(SCHEMA),
        "docs/config.md": pages.config_page(),
        "docs/manifest.md": pages.manifest_page(),
        **{path: json.dumps(schema, indent=2, ensure_ascii=False) + "\n" for path, schema in schemas.items()},
    }


def stale(repository: Path) -> list[str]:
    """The generated files that are not what the models say."""
    return [path for path, text in files().items() if not _same(repository / path, text)]


def _same(path: Path, text: str) -> bool:
    return path.is_file() and path.read_text(encoding="utf-8") == text


def main(arguments: list[str]) -> int:
    repository = Path(__file__).resolve().parents[2]
    old = stale(repository)
    for path in old:
        print(path)
        if "--check" not in arguments:
            (repository / path).parent.mkdir(parents=True, exist_ok=True)
            (repository / path).write_text(files()[path], encoding="utf-8")
    return 1 if old and "--check" in arguments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
