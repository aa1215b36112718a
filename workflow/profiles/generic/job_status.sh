#!/bin/sh
# job_status.sh JOB: print running, success or failed, as Snakemake's executor cluster-generic asks for it.
# A job that the scheduler no longer knows counts as a success: Snakemake then looks for its outputs, which a failed job
# lacks. Where the scheduler does not answer, the job counts as running, and is asked about again.
job=$1

ended() {
  if [ "$1" = 0 ]; then echo success; else echo failed; fi
}

if command -v bjobs >/dev/null; then # LSF
  shown=$(bjobs -noheader -o stat "$job" 2>&1)
  case $shown in
    DONE | *"not found"*) echo success ;;
    EXIT | ZOMBI) echo failed ;;
    *) echo running ;;
  esac
elif command -v qacct >/dev/null; then # SGE: qstat knows unfinished jobs only
  shown=$(qstat -j "$job" 2>&1)
  case $shown in
    *"do not exist"*)
      code=$(qacct -j "$job" 2>/dev/null | awk '$1 == "failed" { killed = $2 } $1 == "exit_status" { code = $2 }
        END { print killed ? killed : code + 0 }')
      ended "$code"
      ;;
    *) echo running ;;
  esac
else # PBS: with -x, finished jobs too where it keeps a history of them
  shown=$(qstat -x -f "$job" 2>&1)
  case $shown in
    *"Unknown Job"*) echo success ;;
    *"job_state = F"*) ended "$(printf '%s\n' "$shown" | sed -n 's/^ *Exit_status = //p')" ;;
    *) echo running ;;
  esac
fi
