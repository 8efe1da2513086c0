"""The incident's memory: one journal, from which everything else is derived.

A journal is a folder: `journal.jsonl` (hikeshi.incident.record has the form of a line), `blobs/` with long texts named
by their SHA-256, and `runs/` with the whole output of every run of Ansible. An incident has one of its own; what
happens to a site while no incident is open goes to the site's standing journal.

Kinds of records, and their data. An action has two: KIND.start, written before it begins, and KIND.end with the seq of
its start, its outcome (done, failed, interrupted), its seconds, and why it failed.

    journal.begun         site; the first record of every journal; anew: true where another one stood and is gone
    journal.torn          bytes, blob: a line that a killed writer left unfinished was taken out
    incident.opened       site, title, name, by, words (of the customer); in the standing journal: folder
    incident.closed       words, by, force, left: what was still open, verified: whole, bad, why, head as verify found
                          them just before; in the standing journal: folder
    incident.reopened     by, words; in the standing journal: folder
    note                  words, by
    person                role (lead, hands, timekeeper, scribe), name
    deadline.set          name, at, owner, kind (report, restore, other), by, words
    deadline.moved        name, at, before, by, why, told: the words the customer was sent, if any
    deadline.handed       name, owner, before: the owner before, by, why
    deadline.ended        name, how (met, dropped), by, why
    deadline.warned       name, at, minutes: the warning that was shown (30, 10, 0)
    late.drafted          name, until, why, words: what to send to the customer
    permission.granted    name, by, words, limit, until, standing: from the site's data, then also when
    permission.refused    name, by, words
    permission.withdrawn  name, by, words
    permission.used       name, grant: seq of what granted it, action, amount
    permission.missing    name, action, why, ask: the sentence for the customer
    probe.start/.end      views, only: which probes, all when null; or surge: requests a second; carried, verdict
    probes                view, results
    findings              found, unseen, kept: what people added, which no step touches; drift: host, subject, words;
                          refused: host, unreachable, why, fix, of hosts that are neither judged nor changed
    baseline.start/.end   name, healthy, why_forced
    item.opened           item, words, close: the command that closes it (a closed gate, held jobs, a copy); recovery:
                          seq of the start of the recovery that opened it, and will close it; until: when a gate opens
                          by itself (seconds since the epoch)
    item.closed           item, words
    gate.start/.end       step (on, off), minutes, never, force; gate: what stands then, changed
    agenda                what is scheduled: until, until_why, bombs: [{host, id, next, why, does, runs}] that may go
                          off until then, more: how many others, held: [{host, id}], held_count, unseen; disk: id of
                          the copy on whose disk it stands, not held by this, and on no host
    jobs.start/.end       step (hold, release, run), count (start)
    jobs.held             until; jobs: [{host, id, result, why, due, missed, does, runs, grave: may do harm}]
    jobs.released         jobs: [{host, id, result, why, due, missed: it came due while it was held, and was not run}]
    rescue.start/.end     check: nothing was to be changed; copy: its id, swapped; or replay: true
    copy.start/.end       step (copy, verify, delete, work, throw-away, open, judge, mend, seal, rehearse, swap-in,
                          swap-back), copy: its id; checks: [{what, ok, words}], what was verified or rehearsed;
                          removed_because; of judge:
                          found, unseen, drift as findings have them; of mend: round, took: [{host, role, step, …,
                          changed, failed}], difference: [{subject, words}] between the copy's disk and the mended one
    copy.told             copy, step, words: what a person did by hand
    count.start/.end      since, until, by, as typed; lines: what became of them, sides: lb, web → totals
    flood                 kind (attack, surge, much), at, rate, usual, surge, addresses, words, cure (proposed, not
                          applied), paths: [[path, share]], accused: [{what, name, rate, limit, basis, share, since,
                          path, path_share, agent, addresses, reasons}], what: client, network, agent or path; much:
                          likewise, who asks much and is accused of nothing; usual is null without a past
    flood.over            kind, at
    watch.failed          why nobody watches for a flood behind the closed gate, for now
    lock.taken            owner: who died holding it
    evidence.saved        units, why, evidence: blob of what save_evidence returned, unseen
    recovery.start/.end   check, plan; healthy, changed
    stage.start/.end      recovery: seq of its start, or of a rescue's by itself; stage, round, host, steps
    stage.skipped         recovery, stage, why
    run.start/.end        verb, playbook, check, folder; status, changed, files: name → SHA-256, returned: host → blob
    task                  run: seq of its start, role, task, outcome (changed, failed, unreachable), seconds, message
"""
