"""Policies: text to a validated model, joined with a tailnet to what each node receives. Pure; server and CLI share it.

    hujson text --document.parse--> Policy --compiler.CompiledPolicy(policy, tailnet)--> filters, SSH rules, peers, routes

`reach.py` alone decides who reaches whom. `compiler.check` is what a policy must pass before it is stored.
"""
