"""What users ask of the cluster, one module per kind of object; `node.manager.controlapi` joins them.

Every method validates, fills defaults, checks what only the store can tell, and writes one transaction.
Those that write take the request they are called for, and answer a repeated one as the first time: with the
object as it is now, or, when it was removed since, with what was asked for under its id.
Texts of errors are Docker's, since clients show and match them.
"""
