"""A lab: several swarmctl nodes on one machine, each with its own network namespace, state and address."""
