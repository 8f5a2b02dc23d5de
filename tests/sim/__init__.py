"""A seeded simulation of the managers: the production Raft over a simulated clock, network and disk.

Everything that happens follows from the seed: `./dev sim SEED=n RUNS=1` repeats a run exactly.
"""
