// Becomes, as far as Node can, the program of this platform's package: same arguments, streams and exit code.
"use strict";
const { spawnSync } = require("node:child_process");
const path = require("node:path");

module.exports = (program) => {
    const name = `cc-langfuse-${process.platform}-${process.arch}`;
    let dir;
    try {
        dir = path.dirname(require.resolve(`${name}/package.json`));
    } catch {
        console.error(
            `${program}: there is no prebuilt program for ${process.platform} on ${process.arch}, or npm left out the optional ` +
                `package ${name}: install without --omit=optional, or build from source`,
        );
        process.exit(1);
    }
    // What the terminal sends to both must not end this one first.
    for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) process.on(signal, () => {});
    const { status, signal, error } = spawnSync(path.join(dir, "bin", program), process.argv.slice(2), { stdio: "inherit" });
    if (error) {
        console.error(`${program}: ${error.message}`);
        process.exit(1);
    }
    if (signal) {
        process.removeAllListeners(signal);
        process.kill(process.pid, signal);
    }
    process.exit(status ?? 1);
};
