//! `kinglet doctor [FLAG...]`: takes the flags of `serve` and looks whether it would run well with them.

pub(super) const ARGUMENTS: &str = "[flags of serve]";

pub(super) const HELP: &str = "\
Usage: kinglet doctor [flags of serve]

Looks at what a server with these flags would find: CPU, clocks, memory, limits, permissions, ports, models. Prints a
line on each, with advice where something is to be improved. Exit code 1 if something would keep the server from working.
";
