// What a browser can add to pages that work without it.
"use strict";

// Copying: whatever has data-copy, or an element that data-copy-from names, gets a button.
function addCopyButtons(root) {
  for (const place of root.querySelectorAll("[data-copy], [data-copy-from]")) {
    if (place.querySelector("button.copy")) continue;
    const button = document.createElement("button");
    button.type = "button";
    button.className = "copy";
    button.textContent = "copy";
    button.setAttribute("aria-label", "copy " + (place.dataset.copyLabel || "this id"));
    button.addEventListener("click", async () => {
      const from = place.dataset.copyFrom;
      const text = from ? document.getElementById(from).textContent : place.dataset.copy;
      try {
        await navigator.clipboard.writeText(text);
        button.textContent = "copied";
      } catch {
        button.textContent = "not allowed";
      }
      setTimeout(() => { button.textContent = "copy"; }, 1500);
    });
    place.append(button);
  }
}

// The reader's own zone is one press away.
function offerOwnZone() {
  const form = document.getElementById("own-zone");
  const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
  if (!form || !zone || form.dataset.zone === zone) return;
  form.elements.zone.value = zone;
  form.querySelector("button").textContent = "show times in " + zone;
  form.hidden = false;
}

// What is live can be paused, on every page at once: an answer that is under way is dropped.
const PAUSED = "ledger-paused";

function isPaused() {
  try { return localStorage.getItem(PAUSED) === "yes"; } catch { return false; }
}

function allowPause() {
  document.addEventListener("change", (event) => {
    if (event.target.id !== "pause") return;
    try { localStorage.setItem(PAUSED, event.target.checked ? "yes" : "no"); } catch { /* kept for this page */ }
    document.dispatchEvent(new Event("paused"));
  });
  document.body.addEventListener("htmx:beforeRequest", (event) => {
    if (pauseIsChecked() && event.target.id === "live") event.preventDefault();
  });
  document.body.addEventListener("htmx:beforeSwap", (event) => {
    const inside = event.target.contains(document.activeElement);
    if (event.target.id === "live" && (pauseIsChecked() || inside)) event.detail.shouldSwap = false;
  });
}

function pauseIsChecked() {
  return Boolean(document.getElementById("pause")?.checked);
}

function showPause() {
  const pause = document.getElementById("pause");
  if (!pause) return;
  pause.checked = isPaused();
  pause.closest("[hidden]")?.removeAttribute("hidden");
}

// The server tells how far the state is. Nothing moves: a note offers what is new.
function followState() {
  const address = document.body.dataset.live;
  if (!address || !window.EventSource) return;
  let source = null;
  let refreshed = 0;
  const told = (position) => {
    const note = document.querySelector(".newer");
    if (note && position > Number(note.dataset.shown)) {
      note.removeAttribute("aria-hidden");
      note.removeAttribute("tabindex");
      note.classList.add("is-there");
    }
    const foot = document.getElementById("newer-foot");
    if (foot && position > Number(document.getElementById("true-for")?.dataset.position)) {
      foot.textContent = "now at " + position.toLocaleString("en") + ": load again";
      foot.parentElement.removeAttribute("hidden");
    }
    const live = document.getElementById("live");
    if (live && window.htmx && Date.now() - refreshed > 5000) {
      refreshed = Date.now();
      window.htmx.trigger(live, "moved");
    }
  };
  const update = () => {
    // A page that nobody sees holds no connection: a browser has few of them for a server.
    const wanted = !document.hidden && !pauseIsChecked();
    if (wanted && !source) {
      source = new EventSource(address);
      source.addEventListener("message", (event) => told(Number(event.data)));
    } else if (!wanted && source) {
      source.close();
      source = null;
    }
  };
  document.addEventListener("visibilitychange", update);
  document.addEventListener("paused", update);
  window.addEventListener("pagehide", () => { source?.close(); source = null; });
  window.addEventListener("pageshow", update);
  update();
}

function selectAll() {
  const all = document.getElementById("all");
  if (!all) return;
  all.closest("[hidden]")?.removeAttribute("hidden");
  all.addEventListener("change", () => {
    for (const box of document.querySelectorAll("input[name=event]")) box.checked = all.checked;
  });
}

// Of several positions the slider shows one: letting it go opens the page as it was then.
function addSlider() {
  const slider = document.getElementById("known");
  if (!slider) return;
  const links = [...document.querySelectorAll("#known-links a")];
  slider.closest("[hidden]")?.removeAttribute("hidden");
  slider.addEventListener("input", () => {
    slider.setAttribute("aria-valuetext", links[Number(slider.value)].textContent.trim());
  });
  slider.addEventListener("change", () => links[Number(slider.value)].click());
}

function countDown() {
  for (const place of document.querySelectorAll("[data-due]")) {
    const left = Math.round((Date.parse(place.dataset.due) - Date.now()) / 1000);
    if (left > 0) {
      const minutes = Math.floor(left / 60);
      place.textContent = "may still come by itself for "
        + (minutes ? minutes + " min " : "") + (left % 60) + " s";
    } else if (left > -3) {
      place.textContent = "overdue";
    }
  }
}

// A file's answer is shown next to the form, so that the file stays chosen; so is a failure.
function showFailures() {
  const show = (words) => {
    const place = document.getElementById("upload-outcome");
    if (!place) return;
    place.className = "notice bad";
    place.setAttribute("role", "alert");
    place.textContent = words;
  };
  document.body.addEventListener("htmx:responseError", (event) => {
    const page = new DOMParser().parseFromString(event.detail.xhr.responseText, "text/html");
    show((page.getElementById("main") || page.body).textContent.replace(/\s+/g, " ").trim());
  });
  document.body.addEventListener("htmx:sendError", () => show("The server does not answer."));
}

function start(root) {
  addCopyButtons(root);
  offerOwnZone();
  selectAll();
}

document.addEventListener("DOMContentLoaded", () => {
  start(document);
  allowPause();
  showPause();
  followState();
  showFailures();
  addSlider();
  countDown();
  setInterval(countDown, 1000);
});
document.addEventListener("htmx:afterSwap", () => { addCopyButtons(document); showPause(); });
