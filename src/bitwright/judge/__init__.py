"""Judging programs that nobody trusts. Standard library only; Linux on x86_64 or aarch64.

values      what goes in and comes out of a program, as JSON
syscalls seccomp landlock namespaces  the walls
zygote      the warm process inside the walls; runner: what it does with one program
pool        starts zygotes, hands out runs fairly, measures them;  tiers: which walls this machine has
operations  what a program's compiled code does
problem     a folder of statement, cases and reference;  checker: expected against yours
judge       a submission's verdict;  growth: its complexity;  proof: does a problem hold
explain     what went wrong, from the experiments in lab:  shrink: smaller inputs;  relatives: known wrong solutions;
            recognise: how an answer differs;  faults: exceptions, no end, growth, what is forbidden
"""
