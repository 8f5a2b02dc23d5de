"""What users would try on several machines, one scenario per module: its docstring says what is shown, `play` shows it.

A scenario drives the machines as a person would: `swarmctl` and other commands inside them, and the lab's power
buttons and network cables. `MACHINES` says how many it needs; `NEEDS_SWARM`, whether they are a swarm of managers
already when it begins. A scenario ends when all that it expects was seen, or with `Unexpected`.
"""
