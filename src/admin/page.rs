//! The page at `/`: the status, live. It is one text without anything from elsewhere.

use super::response::Response;

pub(super) fn response() -> Response {
    Response::text("text/html; charset=utf-8", PAGE)
        .header(
            "Content-Security-Policy: default-src 'none'; style-src 'unsafe-inline'; \
             script-src 'unsafe-inline'; connect-src 'self'; frame-ancestors 'none'",
        )
        .header("Referrer-Policy: no-referrer")
}

/// Everything that comes from the server is put in as text, never as markup.
const PAGE: &str = r##"<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>towpath</title>
<meta name="viewport" content="width=device-width">
<style>
body { font: 14px/1.4 monospace; margin: 1.5em; color: #222; background: #fdfdfb }
h1 { font-size: 1.2em } h2 { font-size: 1em; margin: 1.2em 0 .3em }
table { border-collapse: collapse } td, th { text-align: left; padding: .1em 1.2em .1em 0 }
td.n, th.n { text-align: right } th { color: #777; font-weight: normal }
#state { color: #777 } #state.bad { color: #b00 }
@media (prefers-color-scheme: dark) { body { color: #ddd; background: #191919 } }
</style></head><body>
<h1>towpath <span id="state">asking ...</span></h1>
<p id="ask" hidden><label>token <input id="token" type="password" autocomplete="off"></label></p>
<div id="tables"></div>
<script>
"use strict";
let token = "", before = null;
const field = document.getElementById("token");
field.addEventListener("change", () => { token = field.value; look(); });
function bytes(n) {
  for (const unit of ["B", "K", "M", "G"]) { if (n < 10000) return n.toFixed(0) + unit; n /= 1024; }
  return n.toFixed(0) + "T";
}
function time(s) {
  s = Math.floor(s);
  const d = Math.floor(s / 86400), h = Math.floor(s / 3600) % 24, m = Math.floor(s / 60) % 60;
  return (d ? d + "d " : "") + (d || h ? h + "h " : "") + m + "m " + s % 60 + "s";
}
function table(title, heads, rows) {
  const part = document.createDocumentFragment();
  const name = document.createElement("h2");
  name.textContent = title;
  const grid = document.createElement("table");
  for (const [at, cells] of [heads, ...rows].entries()) {
    const line = grid.insertRow();
    for (const cell of cells) {
      const place = document.createElement(at ? "td" : "th");
      place.textContent = cell;
      if (typeof cell === "number" || (at && /^[0-9.]+[BKMGT]/.test(cell))) place.className = "n";
      line.append(place);
    }
  }
  part.append(name, grid);
  return part;
}
function show(now) {
  const rate = (role, key) => {
    const old = before && before.roles.find(r => r.role === role.role);
    const passed = before ? now.uptime_seconds - before.uptime_seconds : 0;
    return old && passed > 0 ? bytes((role[key] - old[key]) / passed) + "/s" : "";
  };
  const parts = [
    table("roles", ["role", "open", "begun", "ended", "up", "down", "up", "down"], now.roles.map(r =>
      [r.role, r.open, r.opened, Object.entries(r.ended).map(e => e.join(" ")).join(", "),
       bytes(r.bytes_up), bytes(r.bytes_down), rate(r, "bytes_up"), rate(r, "bytes_down")])),
    table("listeners", ["name", "address", ""], now.listeners.map(l =>
      [l.name, l.address, l.transport])),
    table("cores", ["core", "sessions", "connections", "relays"], now.workers.map(w =>
      [w.core, w.sessions, w.connections, w.relays])),
  ];
  if (now.leases && now.leases.length) parts.push(table("leases", ["pool", "ports", "lent", "free"],
    now.leases.map(p => [p.pool, p.first + "-" + p.last, p.leased, p.free])));
  parts.push(table("store", ["values", "size"], [[now.store.records, bytes(now.store.bytes)]]));
  document.getElementById("tables").replaceChildren(...parts);
  before = now;
}
async function look() {
  const state = document.getElementById("state");
  try {
    const headers = token ? { Authorization: "Bearer " + token } : {};
    const answer = await fetch("/status", { headers, cache: "no-store" });
    document.getElementById("ask").hidden = answer.status !== 401 && !token;
    const now = await answer.json();
    if (!answer.ok) throw new Error(now.error);
    show(now);
    state.className = "";
    state.textContent = now.version + ", " + now.phase + ", up " + time(now.uptime_seconds) + ", " +
      now.sessions + " sessions, " + now.connections.used + " of " + now.connections.max + " places";
  } catch (error) {
    state.className = "bad";
    state.textContent = error.message;
  }
}
look();
setInterval(look, 2000);
</script></body></html>
"##;
