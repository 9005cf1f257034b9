"""The fixed parts of the report pages: their style sheet and their glossaries."""

STYLE = """
:root { color-scheme: light; --ink: #1f2933; --muted: #66727f; --line: #e4e9ee; --accent: #009e73; }
* { box-sizing: border-box; }
body { margin: 0; background: #f6f8fa; color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 24px 16px 48px; }
h1 { font-size: 24px; margin: 0; }
h2 { font-size: 18px; margin: 0 0 4px; }
h3 { font-size: 15px; margin: 18px 0 4px; }
section { background: white; border: 1px solid var(--line); border-radius: 8px; padding: 18px 20px; margin-top: 16px; }
.muted { color: var(--muted); margin: 2px 0 8px; }
.top { display: grid; grid-template-columns: minmax(220px, 1fr) 2fr; gap: 24px; }
.big b { font-size: 52px; line-height: 1.1; color: var(--accent); }
.big.none b { color: var(--muted); }
.big p { margin: 4px 0 0; color: var(--muted); }
.words ul, section > ul { margin: 6px 0 0; padding-left: 20px; }
.badge { margin-left: 10px; padding: 2px 9px; border-radius: 10px; font-size: 13px; vertical-align: 14px;
  background: #e5f5f0; color: #00614a; }
.badge.simulated { background: #fdf0d5; color: #7a4b00; }
.badge.synthetic { background: #f6dfec; color: #7c2457; }
.pair { display: grid; grid-template-columns: 1fr 1fr; gap: 16px; }
.pair > div { min-width: 0; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: 5px 10px; border-bottom: 1px solid var(--line); vertical-align: top; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
table.text td, th.t, td.t { text-align: left; }
th { font-weight: 600; vertical-align: bottom; }
td.n { white-space: nowrap; }
td.t { overflow-wrap: break-word; min-width: 60px; }
td.t:first-child { overflow-wrap: anywhere; min-width: 150px; }
summary { color: var(--muted); cursor: pointer; }
.op { font: 13px/1.4 ui-monospace, monospace; overflow-wrap: anywhere; }
.kpis { display: grid; grid-template-columns: repeat(auto-fit, minmax(130px, 1fr)); gap: 10px 20px;
  align-content: center; }
.kpis b { display: block; font-size: 22px; line-height: 1.2; }
.kpis span { color: var(--muted); font-size: 13px; }
.advice td:first-child { min-width: 180px; }
.advice td ul { margin: 0; padding-left: 16px; min-width: 240px; }
.advice small { display: block; color: var(--muted); font-size: 13px; }
h2.device { font-size: 21px; margin: 30px 0 -6px; overflow-wrap: anywhere; }
h1 { overflow-wrap: anywhere; }
code { display: block; overflow-x: auto; background: #f6f8fa; border-radius: 6px; padding: 8px 10px; font-size: 13px; }
@media (max-width: 720px) { .top, .pair { grid-template-columns: 1fr; } main { padding: 12px 8px 32px; }
  section { padding: 14px 12px; } .advice td:first-child { min-width: 130px; }
  .advice td ul { min-width: 170px; } }
"""

GLOSSARY = (
    "<b>MME</b>: the engine for matrix products. <b>TPC</b>: the engine for everything else. Each takes its ops from "
    "an in-order queue. <b>Baseline</b>: the same model code, unsplit, in program order, on the same two engines. "
    "<b>Stack</b>: what a serving stack does by default on this device. <b>Both</b>: MME and TPC busy at once. "
    "<b>Exposed TPC</b>: TPC busy while the MME is not. <b>Bound</b>: the least time any order of these ops could "
    "take; the table says what it is made of; <b>gap</b>: how far the run is above it. <b>Work</b>: masked blocks left "
    "out. <b>Tiling</b>: smaller tensors that stay in caches. <b>Order</b>: the kept order, on one queue at a time if "
    "the device can. <b>Overlap</b>: the same on both queues at once. <b>Recipe</b>: a way to split that serving "
    "stacks use or have used, tried in every sweep. <b>Front</b>: candidates that no other one beats in both time and "
    "memory. <b>Measured</b>: taken off a clock on the device named above. <b>Simulated</b>: computed by a named model."
)

TRACE_GLOSSARY = (
    "<b>MME</b>: the engine for matrix products. <b>TPC</b>: the engine for everything else. <b>DMA</b> copies, "
    "<b>NIC</b> is the network. <b>Fused</b>: kernels that use matrix and vector units in one, so their time cannot be "
    "told apart. <b>Lane</b>: one hardware instance of an engine. <b>Busy</b>: at least one lane of the engine runs. "
    "<b>Both</b>: MME and TPC busy at once. <b>Exposed TPC</b>: TPC busy while the MME is not; <b>exposed MME</b> "
    "likewise; for an op, the part of its time that no other compute engine hides. <b>Idle</b>: no engine busy. "
    "<b>Measured</b>: taken off a clock by a profiler. <b>Simulated</b>: computed by a named model. "
    "<b>Synthetic</b>: made up, to test or to show something."
)
