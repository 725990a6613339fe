// Keys, copying, and news: every page can be read without this.
const own = document.querySelector("script[data-version]");
const up = own.dataset.up;
let version = Number(own.dataset.version);
let at = -1;

const rows = () => [...document.querySelectorAll(".rows tbody tr, ul.rows li")];

function go(to) {
  const all = rows();
  if (!all.length) return;
  at = Math.max(0, Math.min(all.length - 1, to));
  all.forEach((row, index) => row.classList.toggle("at", index === at));
  all[at].scrollIntoView({ block: "nearest" });
  all[at].querySelector("a")?.focus({ preventScroll: true });
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input, select, textarea")) return;
  const help = document.getElementById("help");
  if (event.key === "/") document.getElementById("find").focus();
  else if (event.key === "j") go(at + 1);
  else if (event.key === "k") go(at - 1);
  else if (event.key === "u") document.querySelector(".up a")?.click();
  else if (event.key === "?") help.open ? help.close() : help.showModal();
  else return;
  event.preventDefault();
});
document.getElementById("keys").addEventListener("click", () => document.getElementById("help").showModal());

document.addEventListener("click", (event) => {
  const code = event.target.closest("code.copy");
  if (code) navigator.clipboard?.writeText(code.textContent);
});

// A link to a part opens it.
function open() {
  const part = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (part instanceof HTMLDetailsElement) part.open = true;
}
addEventListener("hashchange", open);
open();

// What a reader has opened stays open.
async function show() {
  const answer = await fetch(location.href);
  if (!answer.ok) return;
  const next = new DOMParser().parseFromString(await answer.text(), "text/html").querySelector("main");
  const main = document.querySelector("main");
  if (!next || main.contains(document.activeElement) && document.activeElement.matches("input, select")) return;
  const before = [...main.querySelectorAll("details")];
  [...next.querySelectorAll("details")].forEach((one, index) => { if (before[index]?.open) one.open = true; });
  main.replaceChildren(...next.childNodes);
  if (at >= 0) rows()[at]?.classList.add("at");
}

async function news() {
  while (document.visibilityState === "visible") {
    try {
      const answer = await fetch(`${up}news?since=${version}`);
      if (!answer.ok) return;
      const now = (await answer.json()).version;
      if (now > version) { version = now; await show(); }
    } catch { await new Promise((wait) => setTimeout(wait, 5000)); }
  }
}
document.addEventListener("visibilitychange", news);
news();
