"""What users ask of the cluster, one module per kind of object; `node.manager.controlapi` joins them.

Every method validates, fills defaults, checks what only the store can tell, and writes one transaction.
Texts of errors are Docker's, since clients show and match them.
"""
