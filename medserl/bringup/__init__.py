"""``medserl bringup``: an ordered list of checks that say within minutes whether this machine can train.

=============  ==========================================================================================
`checks`       the list: what is looked at, what is expected, how long it takes; and which of it is to run
`runner`       runs them in child processes with time limits, writes one line of JSON for each
`child`        such a process: takes names of checks, runs one after the other
`machine`      the first line: device, driver, versions; the environment of the children
`table`        the last lines: what passed, what failed, what was not run
`kernels`      (a) one kernel of each library
`attention`    (b) attention against plain float32, and the one that must be refused
`shape`        (c) the Qwen3-4B shape through verl's engine, without an optimizer
`checkpoint`   (d) a step, a save and a load through verl's engine
`rollout`      (e) vLLM: decoding, sleep and wake
`rounds`       (f) new weights from Megatron to vLLM, (g) whole rounds
`engine`       verl's Megatron engine and batches for (c) and (d)
`flops`        model FLOPs and peaks of devices
=============  ==========================================================================================

A module of a check is imported in a child only. Those of (a) to (d) need PyTorch, Transformer Engine, Megatron, mbridge
and verl, no vLLM and no Ray cluster: they run on a machine that has nothing else.
"""
