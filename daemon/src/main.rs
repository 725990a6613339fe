//! `cc-langfused`: the resident daemon.

use std::process::ExitCode;

fn main() -> ExitCode {
    cc_langfuse::boot::main()
}
