#!/bin/sh
# Runs that wait for a GPU (experiments/results/README.md), the most useful first. Each has a time limit; a run that
# meets it stops and keeps what it has computed. A failure stops no other run. The same call resumes unfinished runs;
# finished ones cost nothing. The exit status is 1 while anything is left.
#
#   sh experiments/gpu_queue.sh --device cuda              all of it; further words go to every command
#   sh experiments/gpu_queue.sh --dry-run --rate 300       what each run trains, and its time at 300 TFLOP/s
#   ONLY="core-seed figure2" sh experiments/gpu_queue.sh --device cuda
#   LO_THEORY="torchrun --nproc-per-node 8 -m lo_theory.cli" sh experiments/gpu_queue.sh --device cuda     (all but the sweep)

here=$(dirname "$0")
left=""

try() { # NAME MINUTES COMMAND FILE WORDS...
    name=$1 minutes=$2 command=$3 file=$4
    shift 4
    if [ -n "$ONLY" ]; then
        case " $ONLY " in *" $name "*) ;; *) return ;; esac
    fi
    echo "== $name, at most $minutes minutes"
    program=${LO_THEORY:-lo-theory}
    if [ "$command" = sweep ]; then program=lo-theory; fi
    # shellcheck disable=SC2086
    timeout --signal TERM --kill-after 60 "${minutes}m" $program "$command" "$here/$file" "$@" || left="$left $name"
}

pairs='rows=[{problem: {N: 25, P: 275}}, {problem: {N: 30, P: 270}}, {problem: {N: 40, P: 260}}, {problem: {N: 50, P: 250}}, {problem: {N: 100, P: 200}}]'

# does the tuned recipe carry over to 19M, and with which batch, rate and scale of embeddings?
try recipes 60 run recipes.yaml --preset paper "$@"
# recipe: tuned, four times the sequences of core: half the gap in every row?
try tuned 90 run table1.yaml --preset tuned "$@"
# a second training of the five pairs: is margin below vanilla again where the model has learned?
try core-seed 40 run table1.yaml --preset core --set seed=1 "$@"
# and a second problem
try core-problem 40 run table1.yaml --preset core --set problem.seed=1 "$@"
# core four times as long: is it the recipe, or the length?
try core-longer 90 run table1.yaml --preset core --set training.steps=5600 "$@"
# the paper's own training: do its numbers come out, under which definition of accuracy?
try paper 60 run table1.yaml --preset paper "$@"
# error by role for l = 1..19 at 2,000 and 10,000 iterations
try figure2 45 run figure2.yaml --preset paper "$@"
# order-aware learners and the masked model at equal FLOPs
try orders 90 run orders.yaml --preset paper "$@"
# over all pairs of mask rates at (20, 280) and (100, 200): where does a trained 6M model err?
try hardness 45 run hardness.yaml --preset paper "$@"
# P/N from 2 to 14 at N = 25 and 50: where does a trained model meet the marginals-only value?
try ratio 60 sweep ratio.yaml --preset paper "$@"
# nine training proposals for 19M at (25, 275), three trainings each: what does each buy at equal operations?
try proposals 150 run proposals.yaml --preset paper "$@"
# and at (40, 260)
try proposals-40 150 run proposals.yaml --preset paper40 "$@"
# the paper's training for 10,000 iterations: does the row order N = 25..100 stay?
try longer 120 run table1.yaml --preset paper --set training.steps=10000 "$pairs" "$@"
# 50,000 iterations in place of the exact posterior: how good was the proxy?
try proxy 150 run figure2.yaml --preset proxy "$@"

if [ -n "$left" ]; then
    echo "not finished:$left; the same call resumes them" >&2
    exit 1
fi
