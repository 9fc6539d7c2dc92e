# The rules that every paper has; a paper's Snakefile includes this file and adds what is its own.
# data and weights -> cells -> verdicts -> tables and figures -> report -> all
from snakemake.exceptions import WorkflowError

from common.errors import ReattendError
from common.workflow import PaperPlan

try:
    plan = PaperPlan(config["paper"], config["scale"])
except ReattendError as error:
    raise WorkflowError(str(error))

indexes = [plan.index(*job) for job in plan.batches()]
drawn = [plan.index(*job) for job in plan.batches() if job[0] in plan.drawn()]
figures = [
    f"<results>/figures/{name}.{suffix}"
    for name in plan.config.figures
    for suffix in ("svg", "png")
]
tables = [
    f"<results>/tables/{name}.{suffix}"
    for name in plan.tables()
    for suffix in ("md", "csv", "tex")
]
descriptions = [f"{plan.folder}/{name}" for name in ("claims.yaml", "reported.csv")]


rule inputs:
    output:
        "<results>/inputs.json",
    log:
        "<results>/logs/inputs.log",
    benchmark:
        "<results>/benchmarks/inputs.tsv"
    localrule: True  # where the command is typed: nodes of a cluster often have no network
    conda:
        "../envs/reattend.yaml"
    params:
        paper=plan.paper,
        scale=plan.scale,
        data=plan.data(),
        sources=lambda wildcards: plan.sources("common.inputs"),
    message:
        "Fetching and verifying data and weights"
    shell:
        "python -m common.inputs {params.paper} --scale {params.scale} --out {output} 2>&1 | tee {log}"


if plan.one_process:

    for number, jobs in enumerate(plan.stages()):

        rule:
            name:
                f"cells_{number + 1}" if number else "cells"
            input:
                [plan.index(*job) for stage in plan.stages()[:number] for job in stage],
                data="<results>/inputs.json",
            output:
                [plan.index(*job) for job in jobs],
            log:
                f"<results>/logs/cells_{number + 1}.log",
            benchmark:
                f"<results>/benchmarks/cells_{number + 1}.tsv"
            conda:
                "../envs/reattend.yaml"
            threads: 2
            resources:
                gpu=max(plan.gpus(experiment) for experiment, _ in jobs),
                mem_mb=max(plan.memory_megabytes(experiment) for experiment, _ in jobs),
                runtime=sum(plan.minutes(experiment) for experiment, _ in jobs),
            params:
                paper=plan.paper,
                scale=plan.scale,
                folder=plan.folder,
                python=plan.python([experiment for experiment, _ in jobs]),
                jobs=[f"'{experiment}/{batch}'" for experiment, batch in jobs],
                settings=[plan.settings(*job) for job in jobs],
                devices=[plan.device(experiment) for experiment, _ in jobs],
                sources=lambda wildcards, jobs=jobs: [
                    plan.sources(experiment) for experiment, _ in jobs
                ],
            message:
                "Measuring " + ", ".join(dict(jobs))
            shell:
                "{params.python} -m common.measure {params.paper} {params.jobs} --config {params.folder}/config.yaml --scale {params.scale}"
                " --out $(dirname {input.data})/records 2>&1 | tee {log}"

else:

    rule cells:
        input:
            "<results>/inputs.json",
            lambda wildcards: [
                plan.index(*job) for job in plan.earlier_batches(wildcards.experiment)
            ],
        output:
            "<results>/records/{experiment}/{batch}.index.json",
        log:
            "<results>/logs/{experiment}/{batch}.log",
        benchmark:
            "<results>/benchmarks/{experiment}/{batch}.tsv"
        conda:
            "../envs/reattend.yaml"
        threads: 2
        resources:
            gpu=lambda wildcards: plan.gpus(wildcards.experiment),
            mem_mb=lambda wildcards: plan.memory_megabytes(wildcards.experiment),
            runtime=lambda wildcards: plan.minutes(wildcards.experiment),
        params:
            paper=plan.paper,
            scale=plan.scale,
            folder=plan.folder,
            python=lambda wildcards: plan.python([wildcards.experiment]),
            settings=lambda wildcards: plan.settings(
                wildcards.experiment, wildcards.batch
            ),
            device=lambda wildcards: plan.device(wildcards.experiment),
            sources=lambda wildcards: plan.sources(wildcards.experiment),
        message:
            "Measuring {wildcards.experiment} ({wildcards.batch})"
        shell:
            "{params.python} -m papers.{params.paper}.{wildcards.experiment} --config {params.folder}/config.yaml --scale {params.scale}"
            " --batch '{wildcards.batch}' --out $(dirname $(dirname {output})) 2>&1 | tee {log}"


# On a cluster the next four rules are one job: each takes seconds, and a queue more.
rule verdicts:
    input:
        indexes,
        descriptions,
    output:
        "<results>/verdicts.json",
    log:
        "<results>/logs/verdicts.log",
    benchmark:
        "<results>/benchmarks/verdicts.tsv"
    group:
        f"results_of_{plan.paper}"
    conda:
        "../envs/reattend.yaml"
    params:
        paper=plan.paper,
        scale=plan.scale,
        sources=lambda wildcards: plan.sources("common.claims"),
    message:
        "Judging the claims"
    shell:
        "python -m common.present verdicts {params.paper} --scale {params.scale} --records $(dirname {output})/records --out {output} 2>&1 | tee {log}"


rule tables:
    input:
        indexes,
        descriptions,
        verdicts="<results>/verdicts.json",
    output:
        tables,
    log:
        "<results>/logs/tables.log",
    benchmark:
        "<results>/benchmarks/tables.tsv"
    group:
        f"results_of_{plan.paper}"
    conda:
        "../envs/reattend.yaml"
    params:
        paper=plan.paper,
        scale=plan.scale,
        sources=lambda wildcards: [
            plan.sources(module)
            for module in [
                "common.tables",
                *(["tables"] if plan.config.tables else []),
            ]
        ],
    message:
        "Writing the tables"
    shell:
        "folder=$(dirname {input.verdicts}); python -m common.present tables {params.paper} --scale {params.scale}"
        " --records $folder/records --out $folder/tables 2>&1 | tee {log}"


if figures:

    rule figures:
        input:
            drawn,
            data="<results>/inputs.json",
        output:
            figures,
        log:
            "<results>/logs/figures.log",
        benchmark:
            "<results>/benchmarks/figures.tsv"
        group:
            f"results_of_{plan.paper}"
        conda:
            "../envs/reattend.yaml"
        params:
            paper=plan.paper,
            scale=plan.scale,
            names=list(plan.config.figures),
            sources=lambda wildcards: plan.sources("figures"),
        message:
            "Drawing the figures"
        shell:
            "folder=$(dirname {input.data}); python -m common.present figures {params.paper} --scale {params.scale}"
            " --records $folder/records --out $folder/figures 2>&1 | tee {log}"


rule report:
    input:
        tables,
        figures,
        f"{plan.folder}/references.bib",
        "report/templates/paper.html.j2",
    output:
        "<results>/report.html",
    log:
        "<results>/logs/report.log",
    benchmark:
        "<results>/benchmarks/report.tsv"
    group:
        f"results_of_{plan.paper}"
    conda:
        "../envs/reattend.yaml"
    params:
        paper=plan.paper,
        scale=plan.scale,
        words=plan.words(),
        sources=lambda wildcards: plan.sources("common.present"),
    message:
        "Writing the report"
    shell:
        "python -m common.present report {params.paper} --scale {params.scale} --records $(dirname {output})/records --out {output} 2>&1 | tee {log}"


rule mlflow:
    input:
        "<results>/report.html",
        "<results>/verdicts.json",
    output:
        "<results>/mlflow_run.txt",
    log:
        "<results>/logs/mlflow.log",
    benchmark:
        "<results>/benchmarks/mlflow.tsv"
    localrule: True
    conda:
        "../envs/reattend.yaml"
    params:
        paper=plan.paper,
        scale=plan.scale,
    message:
        "Logging tables and figures to MLflow"
    shell:
        "python -m common.present mlflow {params.paper} --scale {params.scale} --records $(dirname {output})/records --out {output} 2>&1 | tee {log}"


rule all:
    input:
        "<results>/report.html",
        "<results>/mlflow_run.txt",
    localrule: True
