# A sweep: the same measurements of many variants, side by side.


rule sweep_table:
    input:
        metrics=WORKFLOW.sweep_metrics,
    output:
        table="results/{dataset}/sweeps/{sweep}/table.csv",
        plot=report(
            "results/{dataset}/sweeps/{sweep}/plot.png",
            caption="../report/sweep.rst",
            category="Sweeps",
            labels={"sweep": "{sweep}"},
        ),
        record="results/{dataset}/sweeps/{sweep}/table.json",
    log:
        "results/{dataset}/sweeps/{sweep}/logs/sweep_table.log",
    localrule: True
    conda:
        "../../envs/cutsew.yaml"
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        settings=WORKFLOW.sweep_settings,
    shell:
        cutsew("--log {log} sweep_table {output.table} --settings {params.settings:q}")


rule sweep:
    input:
        target(WORKFLOW.sweep_tables, runs=WORKFLOW.sweep_runs),
