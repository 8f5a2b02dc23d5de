"""The language of the cluster: frozen, typed objects that managers replicate and nodes exchange.

Imports nothing but msgspec, so that agents and the API can use it without the consensus library.
"""
