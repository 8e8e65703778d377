"""The policy's verbs: a request to a call of `Policies`, its outcome to rows."""

from __future__ import annotations

from typing import Any

from buri.control.api.rows import moment
from buri.control.policies import Policies, Question
from buri.control.snapshot import PolicyRecord, Snapshot
from buri.policy.compiler import CompiledPolicy
from buri.policy.diff import describe
from buri.policy.model import Rule
from buri.wire import adminapi as api
from buri.wire.hujson import Document


async def carry_out(policies: Policies, snapshot: Snapshot, request: api.PolicyRequest) -> Any:
    """What goes into `Reply.result`. Raises what `Policies` raises."""
    match request:
        case api.GetPolicy(version=version):
            return _text(policies, policies.version(version) if version else policies.current)
        case api.ListPolicies():
            return [_row(record) for record in policies.history]
        case api.SetPolicy(text=text, author=author, if_match=etag):
            return _text(policies, await policies.set(text, author or "an administrator", if_match=etag))
        case api.CheckPolicy(text=text):
            return _summary(await (policies.test() if text is None else policies.check(text)))
        case api.ExplainPolicy():
            question = Question(request.src, request.dst, request.port, request.protocol)
            return _explanation(policies, question)
        case api.DiffPolicy(text=text):
            names = {node.id: node.name for node in snapshot.nodes.values()}
            return [
                api.PairRow(
                    src=names.get(pair.src, str(pair.src)),
                    dst=names.get(pair.dst, str(pair.dst)),
                    gained=describe(pair.gained),
                    lost=describe(pair.lost),
                )
                for pair in await policies.compare(text)
            ]


def _row(record: PolicyRecord) -> api.PolicyRow:
    return api.PolicyRow(version=record.id, etag=record.etag, author=record.author, created=moment(record.created_s))


def _text(policies: Policies, record: PolicyRecord) -> api.PolicyText:
    return api.PolicyText(
        version=record.id,
        etag=record.etag,
        author=record.author,
        created=moment(record.created_s),
        text=record.text,
        file=str(policies.file or ""),
    )


def _summary(compiled: CompiledPolicy) -> api.PolicySummary:
    policy = compiled.policy
    return api.PolicySummary(
        rules=-1 if policy.rules is None else len(policy.rules),
        ssh_rules=len(policy.ssh),
        tests=len(policy.tests) + len(policy.ssh_tests),
        nodes=compiled.members.all.bit_count(),
    )


def _explanation(policies: Policies, question: Question) -> api.ExplanationRow:
    answer = policies.explain(question)
    found, document = answer.explanation, answer.document
    return api.ExplanationRow(
        allowed=found.allowed,
        sentence=found.describe(document),
        rules=[_place(rule, document) for rule in found.rules],
        nearest=None if found.nearest is None else _place(found.nearest, document),
        lack="" if found.lack is None else found.lack.value,
        notes=list(answer.notes),
    )


def _place(rule: Rule, document: Document) -> api.RulePlace:
    if not rule.path:
        return api.RulePlace(name="", line=0, text="")
    line = document.place(rule.path)[0]
    return api.RulePlace(
        name=f"{rule.path[0]}[{rule.path[1]}]", line=line, text=document.text.splitlines()[line - 1].strip()
    )
