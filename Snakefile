# The table of contents of the suite. `snakemake papers/<name>/all` reproduces a paper; `snakemake --list-target-rules` lists all targets.
import sys

from snakemake.exceptions import WorkflowError
from snakemake.utils import min_version

min_version("9.27")
sys.path.insert(0, workflow.basedir)

from common import parent_runs
from common.errors import ReattendError
from common.scale import cuda_devices
from common.workflow import (
    closing_words,
    main_process,
    misspelt_target,
    papers,
    run_jobs_elsewhere,
    suite_settings,
)


configfile: "config/config.yaml"


try:
    settings, choice = suite_settings(config)
except ReattendError as error:
    raise WorkflowError(str(error))
if main_process():
    print(f"scale: {choice.scale} ({choice.reason})", file=sys.stderr)
    hint = misspelt_target(sys.argv[1:])
    if hint:
        raise WorkflowError(hint)
    if "gpu" not in workflow.global_resources:
        # As many GPU jobs at once as there are GPUs; each locks its own (`common/gpus.py`).
        workflow.register_resource("gpu", max(1, cuda_devices()))


rule all:
    default_target: True
    input:
        [
            f"{settings.results}/{name}/{choice.scale}/report.html"
            for name in papers()
            if not name.startswith("_")
        ],
    localrule: True


rule report:
    input:
        [],
    log:
        "logs/report.log",
    localrule: True
    conda:
        "envs/reattend.yaml"
    shell:
        "python -m common.site 2>&1 | tee {log}"


rule mlflow_import:
    input:
        [],
    log:
        "logs/mlflow_import.log",
    localrule: True
    conda:
        "envs/reattend.yaml"
    shell:
        "python -m common.mlflow_import 2>&1 | tee {log}"


rule doctor:
    input:
        [],
    log:
        "logs/doctor.log",
    localrule: True
    conda:
        "envs/reattend.yaml"
    shell:
        "python -m common.doctor 2>&1 | tee {log}"


for name in papers():
    target = f"papers/{name}/"

    module:
        name: name
        pathvars:
            results=f"{settings.results}/{name}/{choice.scale}",
        snakefile:
            f"papers/{name}/Snakefile"
        config:
            {"paper": name, "scale": choice.scale}

    use rule * from name as target*


# Jobs that Snakemake starts for itself inherit the parent runs of the call.
onstart:
    if main_process():
        if not workflow.local_exec:
            try:
                run_jobs_elsewhere(settings.scale)
            except ReattendError as error:
                raise WorkflowError(str(error))
        rules_to_run = {job.rule.name for job in workflow.dag.needrun_jobs()}
        parent_runs.start(parent_runs.papers_logged_by(rules_to_run), choice.scale)


onsuccess:
    if main_process():
        parent_runs.finish("FINISHED")
    words = closing_words(
        settings.results, choice.scale, workflow.dag_settings.targets
    )
    if words and main_process():
        print(words, file=sys.stderr)


onerror:
    if main_process():
        parent_runs.finish("FAILED")
