//! `mmchat serve` between clients and upstreams that misbehave: each script in `tests/interop_clients` starts its own
//! servers, measures, and prints a line for each check.

use std::{num::NonZero, process::Command};

use crate::{
    common::TestEnv,
    interop::{
        clients::{copy_node_script, run_checks, scripts_dir},
        servers::python,
    },
};

/// The command of a script, which gets the binary as its first argument.
fn script(name: &str) -> Command {
    let mut command = python();
    command.arg(scripts_dir().join(name)).arg(env!("CARGO_BIN_EXE_mmchat"));
    command
}

#[test]
#[ignore = "needs the clients of scripts/interop"]
fn transient_failures_are_no_worse_through_serve() {
    let mut command = script("transient_faults.py");
    command.arg(copy_node_script("transient_faults.mjs"));
    run_checks(command, &TestEnv::new());
}

/// A short choice of the next test.
#[test]
#[ignore = "needs the folder of scripts/interop"]
fn two_candidates_that_fail_in_turn_cause_no_errors() {
    let mut command = script("flapping.py");
    command.args(["6", "2", "two flap in turn: 503"]);
    run_checks(command, &TestEnv::new());
}

#[test]
#[ignore = "takes minutes, and needs the folder of scripts/interop"]
fn candidates_that_flap_cause_no_errors() {
    let mut command = script("flapping.py");
    // A debug build needs about 10 ms of a core for each request, so only one scenario runs on each core.
    let parallel = std::thread::available_parallelism().map_or(1, NonZero::get);
    command.args(["20", &parallel.to_string()]);
    run_checks(command, &TestEnv::new());
}

/// A short choice of the next test.
#[test]
#[cfg(target_os = "linux")]
#[ignore = "needs the folder of scripts/interop"]
fn endless_buffered_streams_stay_under_the_memory_limit() {
    let mut command = script("memory.py");
    command.arg("30 endless buffered streams");
    run_checks(command, &TestEnv::new());
}

/// The script reads the memory of the process from `/proc`.
#[test]
#[cfg(target_os = "linux")]
#[ignore = "takes minutes, and needs the folder of scripts/interop"]
fn memory_stays_under_the_limit() {
    run_checks(script("memory.py"), &TestEnv::new());
}
