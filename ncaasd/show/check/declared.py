"""The checks of manifests, submit files and the configs that they name, for `ncaasd check`."""

from __future__ import annotations

import os
from collections.abc import Iterator

from ncaasd.declare import reading, yamlio
from ncaasd.declare.analysis_config import read_analysis_config
from ncaasd.declare.config import Analysis, Config
from ncaasd.declare.manifest import Manifest, OneOff, Rule, parse_manifest
from ncaasd.errors import DeclarationError, Problem
from ncaasd.neurocaas.addresses import is_address
from ncaasd.neurocaas.naming import Layout
from ncaasd.neurocaas.submission import parse_submit, validate_job
from ncaasd.plan.expand import with_keys
from ncaasd.plan.files import Role, role_of
from ncaasd.plan.gates import ungated
from ncaasd.show import words
from ncaasd.show.check.findings import Finding, Level

LIMIT = 4 * 2**20
SHOWN = 50


def declared_findings(config: Config, name: str, _settings: Analysis) -> Iterator[Finding]:
    folder = os.path.join(config.root, name)
    if not os.path.isdir(folder):
        return
    paths = declaring_files(folder)
    wrong = 0
    for path in paths:
        problems = list(problems_of(config, name, path))
        wrong += any(level is Level.BAD for level, _ in problems)
        for level, problem in problems[:SHOWN]:
            yield Finding("manifest", level, str(problem), analysis=name)
    if not paths:
        yield Finding("manifests", Level.NOTE, "none yet: nothing is run", "docs/manifest.md, or `ncaasd submit`", name)
    elif not wrong:
        yield Finding("manifests", Level.GOOD, f"{words.count(len(paths), 'file')} can be read", analysis=name)


def declaring_files(folder: str) -> list[str]:
    """Manifests and submit files of an analysis, relative to its folder."""
    found = ["manifest.yaml"] if os.path.isfile(os.path.join(folder, "manifest.yaml")) else []
    try:
        names = sorted(os.listdir(os.path.join(folder, "submissions")))
    except OSError:
        names = []
    return found + [p for n in names if not n.startswith(".") and role_of(p := f"submissions/{n}") is not Role.NONE]


def problems_of(config: Config, name: str, path: str) -> Iterator[tuple[Level, Problem]]:
    """What is wrong with one manifest or submit file, and with the configs that it names."""
    folder = os.path.join(config.root, name)
    try:
        with open(os.path.join(folder, path), "rb") as file:
            data = file.read(LIMIT)
        if role_of(path) is Role.SUBMIT:
            check_submit(data, path, Layout(name, config.group))
            return
        manifest = parse_manifest(
            data, path, standing=role_of(path) is Role.MANIFEST, sources=config.sources, tools=config.tools
        )
    except OSError as error:
        yield Level.BAD, Problem(path, 0, 0, "", f"can't be read: {error.strerror}")
        return
    except DeclarationError as error:
        yield from ((Level.BAD, problem) for problem in error.problems)
        return
    root = yamlio.parse(data, path).root
    yield from _configs(manifest, root, path, folder)
    for number, rule in enumerate(manifest.rules):
        if rule.ungated:
            key, _, node = reading.locate(root, ("rules", number, "unit"))
            yield Level.NOTE, Problem(path, node.line, node.column, key, ungated(rule))


def check_submit(data: bytes, path: str, layout: Layout) -> None:
    """Check a hand-written submit file. Raises DeclarationError with every problem."""
    problems = validate_job(with_keys(parse_submit(data, path, bucket=layout.bucket), layout), layout)
    if problems:
        raise DeclarationError([Problem(path, 0, 0, "", text) for text in problems])


def _configs(manifest: Manifest, root: yamlio.Node, path: str, folder: str) -> Iterator[tuple[Level, Problem]]:
    """The problems of the configs that a manifest names: missing, or not readable for NeuroCAAS."""
    named: list[tuple[str, int, Rule | OneOff]] = [("rules", n, rule) for n, rule in enumerate(manifest.rules)]
    named += [("jobs", n, job) for n, job in enumerate(manifest.jobs)]
    for section, number, item in named:
        if is_address(item.config) or "{" in item.config:
            continue
        key, _, node = reading.locate(root, (section, number, "config"))
        there = os.path.join(folder, "configs", item.config)
        try:
            with open(there, "rb") as file:
                read_analysis_config(file.read(LIMIT), f"configs/{item.config}")
        except DeclarationError as error:
            yield from ((Level.BAD, problem) for problem in error.problems)
        except OSError:
            # A rule without its config does nothing; a one-off may be waiting for its config, or not need it any more.
            level = Level.BAD if isinstance(item, Rule) else Level.NOTE
            text = f"configs/{item.config} is not there; its jobs wait until it is put there"
            yield level, Problem(path, node.line, node.column, key, text)
