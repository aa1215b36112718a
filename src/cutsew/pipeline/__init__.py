"""What Snakemake needs: the graph of stages, the plan of a run, checks before the first job, resources."""
