//! The daemon with a second kind of backend, for tests.

use std::process::ExitCode;

fn main() -> ExitCode {
    cc_langfuse::boot::main()
}
