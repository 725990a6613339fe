#!/bin/sh
# Becomes the MCP server where it is installed, and says where it is not.
ctl=$(command -v cc-langfusectl) || for ctl in "$HOME/.local/bin/cc-langfusectl" "${CARGO_HOME:-$HOME/.cargo}/bin/cc-langfusectl" ''; do
    [ -x "$ctl" ] && break
done
[ -n "$ctl" ] && exec "$ctl" mcp
echo 'cc-langfuse: cc-langfusectl is not installed, so nothing answers questions about sessions' >&2
exit 1
