"""docs/config.md and docs/manifest.md, from the models; every example in them is read by the real reader first."""

from __future__ import annotations

from pydantic import BaseModel

from ncaasd.declare import example, ignored
from ncaasd.declare.config import Config, load_config
from ncaasd.declare.manifest import OneOff, PackageTool, Rule, parse_manifest
from ncaasd.declare.reading import key_of
from ncaasd.errors import DeclarationError

_MADE = "<!-- Made by `python -m ncaasd.declare.generate` from the models in ncaasd/declare: change those. -->\n"

_CONFIG_INTRO = """\
One YAML file; everything is optional but `group`, `root` and `analyses`. [config.example.yaml](../config.example.yaml)
has every key at its default, and [the JSON Schema](schemas/config.schema.json) lets an editor complete and check it.
The sections `aws`, `watch`, `upload`, `jobs`, `results` and `after_results` may be said again in an analysis: key by
key, what is said there wins.
"""

_MANIFEST_INTRO = """\
What should be run. [The JSON Schema](schemas/manifest.schema.json) lets an editor complete and check both kinds (with
`# yaml-language-server: $schema=` and its place in the first line); `ncaasd plan FILE` shows what a manifest would do
before it is dropped.
"""

_IGNORED = """\
What is ignored is not looked at, not uploaded, and gets no job; a file that is renamed from such a name to its own is taken
soon after. `watch.ignore` adds to this built-in list; an analysis may have a `watch.ignore` of its own, which then stands
for the general one. When folders of storage or systems are found, the event log says so once.
"""

_WRONG_CONFIG = """\
group: user1
root: /data/neurocaas
analyses:
  caiman-ncap-web: {}
watch:
  settel: 30s
jobs:
  timeout: 48
  max_active: 20
  max_active: 30
"""

RULES = """\
rules:
  - name: two-photon
    datasets: "**/*.tif"
    exclude: "**/*_preview.tif"
    config: "{animal}.yaml"
    source: rig1
    unit: "{animal}/{date}_{run}"
    complete_when: [DONE]
    abort_when: ABORTED
    overdue: 6h
    job_per: unit
    set: {fr: 30, __duration__: 240}
"""

JOBS = """\
jobs:
  - name: mouse7
    datasets: [mouse7/a.tif, mouse7/b.tif]
    config: caiman.yaml
  - name: public-data
    datasets: [s3://lab-bucket/data/a.tif]
    config: s3://lab-bucket/configs/c.yaml
    resultpath: s3://lab-bucket/out
"""

_VALUES = """\
- **Text** is what is written: `20240102_01`, `2024-01-02`, `19:00`, `007`, `on` and `no` stay as they are, also as keys.
  Quotes are needed only where YAML itself wants them: text that begins with `*`, `&`, `{`, `[`, `%`, `@`, `!`, `|`
  or `>`, and text with `{` or `}` in it inside braces.
- **Nothing** (`null`, `~`, or no value) is allowed where the default is `null`.
- A **list of one** may be written as the one: `exclude: "*.log"`.
"""

_CONFIG_VALUES = """\
- **Durations**: `30s`, `5m`, `48h`, `2d`, `1h30m`, `500ms`. A number without a unit is an error.
- **Sizes**: `5 GB` is 5,000,000,000 bytes, `8 MiB` is 8,388,608.
- **Rates**: `10 MB/s` (bytes), `80 Mbit/s` or `80 Mbps` (bits); `none` is no limit, `0` a pause. `Mb/s` means
  both to people, so it is an error.
"""

_PATTERNS = """\
## Patterns

`*` and `?` match within one name, `[abc]`, `[a-z]` and `[!a]` one character. `**/` is any folders, or none, so
`**/*.tif` finds `a.tif` as well as `x/y/a.tif`; `raw/**` is everything below `raw`. Capital letters count.
Patterns and paths are below `inputs/` (or below the rule's source); in a rule with a `unit`, below the unit. None
may begin with `/` or contain `..`: a manifest reaches other folders only through the config's `sources`, and runs
nothing but the config's `tools`.

## Units

`unit: "{animal}/{date}_{run}"` says which folders belong together, and names the parts of their names; the parts
can be used in `config`, `set` and `package`. Between two parts, the first ends as early as it can: `2024_01_3` is
date `2024`, run `01_3`. A part may come again in another folder's name, and is the same there:
`{animal}/{animal}_{date}`. Files above the unit's folder belong to no unit.

A unit is whole when each of `complete_when` is in it, nothing of it is being written, and nothing in it has changed for
`whole_after`. Before its job is submitted all of it that goes up is in S3 (or what `with` names), because an analysis may
read what lies beside its data. What is there and can't be taken (a link out of the folder, a subfolder that may not be
entered) holds its jobs until it is mended, or left out with `exclude`.

## Names that an analysis opens

A config goes up under a name of its content, so that mending it changes nothing under a job that runs. Some analyses open
one name, whatever the submit file says: `config_name: config.yaml` gives it to them (`config.json` is written as JSON). Jobs
whose configs differ under one name then run one after the other, and `ncaasd jobs` says which one each waits for. A config
in S3 under that name that isn't this rig's is left alone: the job is held until `ncaasd release` says that it may be replaced. A
file in `configs/` of that name goes up with the jobs only, not by itself.

A dataset keeps its folders in S3. For an analysis that looks directly in `inputs/`, `key: base` leaves them out; of two files
of one name the second waits, and its job says so, because only one can have the name there. A rule that gets `key: base` later
sends nothing again that its jobs had.

## Values in `set`

They are laid over the config, key by key, also inside of keys; lists are replaced. What is in quotes is text.
Without quotes `true` and `false` are booleans, `null`, `~` and nothing are null, decimal numbers are numbers, and all
else is text: so `on`, `yes`, `2024-01-02`, `19:00`, `1_000`, `007` and `0x10` are text. NaN and infinities are errors.
"""


def config_page() -> str:
    """docs/config.md."""
    parts = [
        "# The config\n",
        _MADE,
        _CONFIG_INTRO,
        "## How values are written\n",
        _VALUES + _CONFIG_VALUES,
        "## Keys\n",
    ]
    single = [name for name in example.ORDER if example.section_of(Config.model_fields[name]) is None]
    parts.append(_table(Config, single))
    for name in example.ORDER:
        section = example.section_of(Config.model_fields[name])
        if section is not None:
            parts += [
                f"## `{name}`\n",
                example.meaning(Config.model_fields[name]) + "\n",
                _table(section, None, f"{name}."),
            ]
        if name == "watch":
            parts += ["### What is ignored\n", _IGNORED, _ignored()]
    parts += ["## When something is wrong\n", "All of a file's problems are said at once. This config\n"]
    parts += [f"```yaml\n{_WRONG_CONFIG}```\n", "gets this answer, and the daemon goes on with the last good one:\n"]
    parts.append(f"```text\n{_answer(_WRONG_CONFIG)}\n```\n")
    return "\n".join(parts)


def manifest_page() -> str:
    """docs/manifest.md."""
    parse_manifest(RULES.encode(), "manifest.yaml", standing=True, sources=["rig1"], tools=[])
    parse_manifest(JOBS.encode(), "today.yaml", standing=False, sources=[], tools=[])
    return "\n".join(
        [
            "# The manifests\n",
            _MADE,
            _MANIFEST_INTRO,
            "## Standing rules: `<analysis>/manifest.yaml`\n",
            f"```yaml\n{RULES}```\n",
            _table(Rule),
            "`package` with a tool has\n",
            _table(PackageTool, None, "package."),
            "## One-off jobs: `<analysis>/submissions/*.yaml`\n",
            "Dropping the file is the request.\n",
            f"```yaml\n{JOBS}```\n",
            _table(OneOff),
            "## How values are written\n",
            _VALUES,
            _PATTERNS,
        ]
    )


def _table(model: type[BaseModel], names: list[str] | None = None, above: str = "") -> str:
    rows = ["| key | default | meaning |", "|---|---|---|", *_rows(model, names, above)]
    return "\n".join(rows) + "\n"


def _rows(model: type[BaseModel], names: list[str] | None, above: str) -> list[str]:
    rows = []
    for name in names or list(model.model_fields):
        field = model.model_fields[name]
        section = example.section_of(field)
        if section is not None:
            rows += _rows(section, None, f"{above}{name}.")
            continue
        default = "required" if field.is_required() else f"`{example.written(field, field.default)}`"
        rows.append(
            f"| `{above}{key_of(name, field)}` | {default} | {example.meaning(field).replace('|', chr(92) + '|')} |"
        )
    return rows


def _ignored() -> str:
    rows = ["| names | whose |", "|---|---|"]
    rows += [f"| {', '.join(f'`{n}`' for n in entry.names)} | {entry.whose} |" for entry in ignored.BUILT_IN]
    return "\n".join(rows) + "\n"


def _answer(text: str) -> str:
    try:
        load_config(text.encode(), "config.yaml")
    except DeclarationError as error:
        return str(error)
    raise AssertionError("the example of a wrong config is right")
