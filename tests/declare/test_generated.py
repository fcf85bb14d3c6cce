"""What is made from the models is what is in the repository, and says what the reader does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from declare_tables import CONFIG, problems
from pydantic import BaseModel

from ncaasd.declare import example, generate
from ncaasd.declare.config import Config, load_config
from ncaasd.declare.manifest import Manifest, OneOff, Rule, parse_manifest
from ncaasd.declare.pages import JOBS, RULES
from ncaasd.declare.reading import key_of, models

REPOSITORY = Path(__file__).resolve().parents[2]
FILES = generate.files()


@pytest.mark.parametrize("path", FILES)
def test_the_file_is_what_the_models_say(path: str) -> None:
    assert (REPOSITORY / path).read_text(encoding="utf-8") == FILES[path], "run: python -m ncaasd.declare.generate"


def test_check_finds_a_stale_file(tmp_path: Path) -> None:
    for path, text in FILES.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text, encoding="utf-8")
    assert generate.stale(tmp_path) == []
    (tmp_path / "docs/config.md").write_text("old", encoding="utf-8")
    (tmp_path / "config.example.yaml").unlink()
    assert generate.stale(tmp_path) == ["config.example.yaml", "docs/config.md"]


def test_the_example_is_right_and_shows_the_defaults() -> None:
    bare = b"group: user1\nroot: /data/neurocaas\nanalyses: {caiman-ncap-web: {}, dlc-ncap-web: {aws: {profile: dlc}}}"
    assert load_config(FILES["config.example.yaml"].encode(), "config.example.yaml") == load_config(bare, "bare")


def test_the_example_has_every_key() -> None:
    def keys(model: type[BaseModel], tree: Any, above: str) -> list[str]:
        missing = [above + name for name in model.model_fields if name not in tree]
        for name, field in model.model_fields.items():
            section = example.section_of(field)
            if section is not None and name in tree:
                missing += keys(section, tree[name], f"{above}{name}.")
        return missing

    assert keys(Config, yaml.safe_load(FILES["config.example.yaml"]), "") == []
    assert sorted(example.ORDER) == sorted(Config.model_fields)


@pytest.mark.parametrize(
    ("page", "model"), [("docs/config.md", Config), ("docs/manifest.md", Rule), ("docs/manifest.md", OneOff)]
)
def test_the_page_explains_every_key(page: str, model: type[BaseModel]) -> None:
    def paths(cls: type[BaseModel], above: str) -> list[str]:
        out = []
        for name, field in cls.model_fields.items():
            section = example.section_of(field)
            out += paths(section, f"{above}{name}.") if section else [above + key_of(name, field)]
        return out

    assert [path for path in paths(model, "") if f"| `{path}` |" not in FILES[page]] == []


@pytest.mark.parametrize("model", [Config, Manifest])
def test_every_key_has_a_description(model: type[BaseModel]) -> None:
    seen, queue = {model}, [model]
    while queue:
        cls = queue.pop()
        assert cls.__doc__
        assert [name for name, field in cls.model_fields.items() if not example.meaning(field)] == []
        for field in cls.model_fields.values():
            for below in models(field.annotation):
                if below not in seen:
                    seen.add(below)
                    queue.append(below)


def judge(schema: str, text: str) -> bool:
    """Whether the schema takes a file, as an editor's YAML 1.2 reads it."""
    validator = jsonschema.Draft202012Validator(json.loads(FILES[f"docs/schemas/{schema}.schema.json"]))
    validator.check_schema(validator.schema)
    return not list(validator.iter_errors(yaml.safe_load(text)))


@pytest.mark.parametrize(
    ("more", "right"),
    [
        ("", True),
        ("watch: {settle: 1h30m, ignore: '*.bak', min_free: 0}", True),
        ("upload: {bandwidth: 10 MB/s}", True),
        ("upload: {bandwidth: none}", True),
        ("upload: {bandwidth: [{hours: '08:00-19:00', limit: 10 MB/s}]}", True),
        ("web: 'off'", True),
        ("web: false", True),
        ("web: {listen: 'localhost:1'}", True),
        ("after_results: {local_inputs: {move: '/a/{path}'}}", True),
        ("after_results: {local_inputs: {delete: {copy_at: '/a/{path}'}}, run: null}", True),
        ("sources: {rig1: /mnt/x}\ntools: {t: [python, 1]}", True),
        ("rig: 20240102", True),
        ("wtch: {}", False),
        ("watch: {settel: 1s}", False),
        ("watch: {mode: nativ}", False),
        ("jobs: {max_active: many}", False),
        ("jobs: {max_active: 0}", False),
        ("watch: {rescan: 30}", False),
        ("tools: {t: python x.py}", False),
        ("state: relative", False),
        ("after_results: {local_inputs: {mov: x}}", False),
    ],
)
def test_the_configs_schema_and_the_reader_agree(more: str, right: bool) -> None:
    assert judge("config", CONFIG + more) is right
    assert (problems(lambda: load_config((CONFIG + more).encode(), "c")) == []) is right


@pytest.mark.parametrize(
    ("text", "standing", "right"),
    [
        (RULES, True, True),
        (JOBS, False, True),
        ("rules: []", True, True),
        ("rules: [{name: r, datasets: a, config: c.yaml, package: zip, unit: '{a}'}]", True, True),
        ("rules: [{name: r, datasets: a}]", True, False),
        ("rules: [{name: r, datasets: [], config: c.yaml}]", True, False),
        ("rules: [{name: r, datasets: a, config: c.yaml, jobper: unit}]", True, False),
        ("rules: [{name: r, datasets: a, config: c.yaml, canary: -1}]", True, False),
        ("jobs: [{name: r, datasets: a, config: c.yaml, set: [1]}]", False, False),
        ("jobs: {name: r}", False, False),
    ],
)
def test_the_manifests_schema_and_the_reader_agree(text: str, standing: bool, right: bool) -> None:
    def read() -> object:
        return parse_manifest(text.encode(), "m", standing=standing, sources=["rig1"], tools=[])

    assert judge("manifest", text) is right
    assert (problems(read) == []) is right
