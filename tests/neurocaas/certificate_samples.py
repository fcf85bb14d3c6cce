"""Certificates and status files in NeuroCAAS's format, written here: own ids, names and times.

Each certificate is built from its lines, so that tests can cut it anywhere, as a poll would see it grow.
"""

from __future__ import annotations

import json

BUCKET = "caiman-ncap-web"
GROUP = "wardlab"
JOB = "314159265358979"


def stamped(line: str, hundredths: int) -> str:
    return f"{line}\t [+0:00:{hundredths // 100:02d}.{hundredths % 100:02d}]"


def header(datasets: list[str] | str, config: str = "wardlab/configs/cai.yaml", *, output: str = "None") -> list[str]:
    out = f"'output': {{'bucket': {output}, 'resultpath': {output if output == 'None' else repr('out/night')}}}"
    return [
        stamped("REQUEST START TIME: 2031-03-05 04:10:11.12 (GMT)", 0),
        stamped("ANALYSIS VERSION ID: 0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c", 1),
        stamped(f"JOB ID: {JOB}", 1),
        "",
        " ",
        stamped("[Job Manager] Detected new job: starting up.", 2),
        stamped("        [Internal (init)] Initializing job manager.", 3),
        stamped("        [Internal (init)] Using default instance type c5.2xlarge from config file.", 3),
        stamped(f"        [Internal (init)] Analysis request with dataset(s): {datasets}, config file {config}", 4),
        stamped(
            "        [Internal (init)] Full bypass info: {'input': {'bucket': None, 'datapath': None, 'configpath': None}, "
            + out
            + "}",
            5,
        ),
    ]


STEP_1 = [stamped("[Job Manager] STEP 1/4 (Initialization): DONE", 6)]
CONFIG = [
    stamped("        [Internal (parse_config)] parameter __duration__ given: 90", 8),
    stamped(
        "        [Internal (parse_config)] parameter __dataset_size__ is not given, proceeding with standard storage.",
        9,
    ),
    stamped(
        "        [Internal (get_costmonitoring)] Customized budget not found. Using default budget value of 300.0", 11
    ),
]
COST = [
    stamped("        [Internal (get_costmonitoring)] Projected total costs: $4.125. Remaining budget: $295.875", 12)
]
STEP_2 = [stamped("[Job Manager] STEP 2/4 (Validation): DONE", 13)]
STEP_3 = [stamped("[Job Manager] STEP 3/4 (Environment Setup): DONE", 14)]
LAUNCH = [
    stamped("        [Utils] Acquiring new c5.2xlarge instances from ami-00c0ffee00c0ffee0 ...", 15),
    stamped("        [Internal (put_instance_monitor_rule)] Setting up monitoring on all instances...", 18),
]
STEP_4 = [
    stamped("        [Internal (process_inputs)] All jobs submitted. Processing...", 20),
    stamped("[Job Manager] STEP 4/4 (Initialize Processing): DONE", 21),
    stamped("JOB MONITOR LOG COMPLETE. SEE TOP FOR LIVE PER-DATASET MONITORING", 22),
]
FAREWELL = ["", stamped("[Job Manager] Shutting down job.", 30)]


def traceback(*last: str) -> list[str]:
    return ['  File "/var/task/handler.py", line 7, in handler', "    ...", *last]


def internal_error(step: int, name: str, *last: str) -> list[str]:
    first = f"[Job Manager] STEP {step}/4 ({name}): INTERNAL ERROR. Traceback (most recent call last):"
    return [first, *traceback(*last), *FAREWELL]


def aws_error(said: str) -> list[str]:
    return [f"[Job Manager] STEP 4/4 (Initialize Processing): AWS ERROR. {said}", FAREWELL[1]]


def monitor(*lines: str) -> list[str]:
    return [
        "PER ENVIRONMENT MONITORING:",
        "=" * 16,
        *(f"DATANAME: {line}" for line in lines),
        "=" * 16,
        "Once jobs start, these logs will be updated regularly. Allow some time [~1 minute] after all jobs finish.",
        " ",
        "JOB MANAGER SETUP LOG:",
    ]


DATA = ["wardlab/inputs/m1/a.tif", "wardlab/inputs/m1/b.tif", "wardlab/inputs/m2/c.tif"]
STARTED = [*header(DATA), *STEP_1, *CONFIG, *COST, *STEP_2, *STEP_3, *LAUNCH]
CAPACITY = "{'Code': 'InsufficientInstanceCapacity', 'Message': 'We have none of that type just now.'}"
_CLEANING = "While cleaning up from AWS Error, another error occured: Traceback (most recent call last):"
CLEANING_UP = [
    f"[Job Manager] STEP 4/4 (Initialize Processing): INTERNAL ERROR. {_CLEANING}",
    *traceback("UnboundLocalError: cannot access local variable 'instances' where it is not associated with a value"),
    *FAREWELL,
]

LINES: dict[str, list[str]] = {
    "launched": [*STARTED, *STEP_4],
    "silent": header("None"),
    "no dataname": [
        *header(DATA)[:8],
        stamped(
            "        [Internal (init)] INPUT ERROR: Submit file does not contain field 'dataname', needed to analyze data.",
            6,
        ),
    ],
    "no config": [
        *header(DATA),
        *STEP_1,
        stamped(
            "        [Internal (check_existence)] INPUT ERROR: S3 Bucket does not contain wardlab/configs/x.yaml", 8
        ),
        *internal_error(2, "Validation", "ValueError: [JOB TERMINATE REASON] 'configname' field refers to nothing."),
    ],
    "no data": [
        *header(DATA[:1]),
        *STEP_1,
        stamped(
            "        [Internal (check_existence)] INPUT ERROR: S3 Bucket does not contain ['wardlab/inputs/m1/a.tif']",
            8,
        ),
        *internal_error(2, "Validation", "ValueError: [JOB TERMINATE REASON] 'dataname' field refers to nothing."),
    ],
    "some data missing": [
        *header(DATA),
        *STEP_1,
        stamped(f"        [Internal (check_existence)] INPUT ERROR: S3 Bucket does not contain {DATA}", 8),
        *internal_error(2, "Validation", "ValueError: [JOB TERMINATE REASON] 'dataname' field refers to nothing."),
    ],
    "yml": [
        *header(DATA, "wardlab/configs/cai.yml"),
        *STEP_1,
        *internal_error(
            2,
            "Validation",
            "UnboundLocalError: cannot access local variable 'passed_config' where it is not associated with a value",
        ),
    ],
    "cost unknown": [
        *header(DATA),
        *STEP_1,
        *CONFIG[:2],
        *internal_error(
            2,
            "Validation",
            "IndexError: list index out of range",
            "",
            "During handling of the above exception, another exception occurred:",
            "",
            "Traceback (most recent call last):",
            *traceback(
                "Exception:         [Internal (get_costmonitoring)] Unexpected Error: Unable to estimate cost of current job."
            ),
        ),
    ],
    "over budget": [
        *header(DATA),
        *STEP_1,
        *CONFIG,
        stamped(
            "        [Internal (get_costmonitoring)] Projected total costs: $301.056. Over budget ($300.0), cancelling job. "
            "Contact administrator.",
            12,
        ),
        "[Job Manager] STEP 2/4 (Validation): INTERNAL ERROR. Error: Job is not covered by budget. Contact the administrator.",
        FAREWELL[1],
    ],
    "limit": [
        *STARTED,
        stamped(
            "        [Internal (acquire_instances)] RESOURCE ERROR: Instance requests greater than pipeline bandwidth.",
            16,
        ),
        *internal_error(4, "Initialize Processing", "ValueError: [JOB TERMINATE REASON] Too many deployed analyses."),
    ],
    "capacity": [*STARTED, *aws_error(CAPACITY), *CLEANING_UP],
    "vcpu": [*STARTED, *aws_error("{'Code': 'VcpuLimitExceeded', 'Message': 'no more'}"), *CLEANING_UP],
    "rule limit": [*STARTED, *aws_error("{'Code': 'LimitExceededException', 'Message': 'too many rules'}")],
    "transient": [*STARTED, *aws_error("Transient AWS Communication Error. Please Try Again")],
    "code only": [*STARTED, *aws_error("{'Code': 'UnauthorizedOperation'}")],
    # the error's own words count, not what came of cleaning up after it
    "transient, and cleaning up": [
        *STARTED,
        *aws_error("Transient AWS Communication Error. Please Try Again"),
        *CLEANING_UP,
    ],
    "argument": [
        *header(DATA),
        *STEP_1[:0],
        stamped("        [Internal (init)] INPUT ERROR: something new", 6),
    ],
    "cut off": [
        *header(DATA),
        *STEP_1,
        "[Job Manager] STEP 2/4 (Validation): INTERNAL ERROR. Traceback (most recent call last):",
        "KeyError: 'fr'",
    ],
    "step 1": [*header(DATA), *STEP_1],
    "waiter": [
        *STARTED,
        *internal_error(
            4, "Initialize Processing", "RuntimeError: Waiter SystemStatusOk failed: Max attempts exceeded"
        ),
    ],
    "disk": [
        *STARTED,
        *internal_error(
            4,
            "Initialize Processing",
            "botocore.exceptions.ParamValidationError: Parameter validation failed:",
            "Invalid type for parameter Ebs.VolumeSize, value: 35.5",
        ),
    ],
}
LINES["running"] = [
    *monitor(
        f"{DATA[0]} | STATUS: SUCCESS | TIME: 2031_03_05_04_44_05 (finished) | LAST COMMAND:  | CPU_USAGE: 97.0 %",
        f"{DATA[1]} | STATUS: IN PROGRESS | TIME: 2031-03-05 04:44:01.250401 | LAST COMMAND: echo a | b | CPU_USAGE: 81",
        f"{DATA[2]} | STATUS: INITIALIZING | TIME: 2031-03-05 04:12:01.250401 | LAST COMMAND: NONE",
    ),
    *LINES["launched"],
]
CERTIFICATES = {name: "\n".join(lines) + "\n" for name, lines in LINES.items()}


def status(word: str, name: str = "a.tif", *, lines: tuple[str, ...] = (), **more: object) -> bytes:
    """A status file as newer workers write it."""
    body = {
        "instance": "i-0a1b2c3d4e5f60718",
        "command": "7d7d7d7d-0000-4000-8000-0123456789ab",
        "input": f"wardlab/inputs/{name}",
        "status": word,
        "reason": 0 if word == "SUCCESS" else None,
        "memory_usage": "1024 MB",
        "cpu_usage": "55.0 %",
        "job_start": "2031-03-05T04:14:00Z",
        "job_finish": "N/A",
        "std": {str(number): f"{line}\n" for number, line in enumerate(lines)},
    } | more
    return json.dumps(body, indent=4).encode()


def old_status(
    word: str, name: str = "a.tif", *, out: object = "not given yet", err: object = "not given yet"
) -> bytes:
    """A status file as the job manager and older workers write it."""
    body = {"status": word, "reason": "NONE", "stdout": out, "stderr": err, "input": f"wardlab/inputs/{name}"}
    return json.dumps(body | {"instance": "i-0a1b2c3d4e5f60718", "cpu_usage": ["76"]}).encode()
