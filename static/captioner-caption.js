// One caption: a click on the sentence edits it in place. Without this file the form below does.
"use strict";

const part = (selector) => document.querySelector(selector);
const sayField = () => part("[data-say] textarea");

// --- What was typed and not saved: leaving asks, and after a reload it is still there --------------------------------

const draftKey = (field) => `draft ${location.pathname} ${field.name}`;
const isUnsaved = (field) => field.value !== field.defaultValue;
let isSending = false;

// A browser may forbid this site to keep anything; then nothing is kept.
function draftKeep(field) {
  try {
    if (isUnsaved(field)) localStorage.setItem(draftKey(field), JSON.stringify([field.defaultValue, field.value]));
    else localStorage.removeItem(draftKey(field));
  } catch {}
}

function draftRestore(field) {
  try {
    const [from, text] = JSON.parse(localStorage.getItem(draftKey(field))) ?? [];
    if (text !== undefined && from === field.defaultValue) field.value = text;
  } catch {}
  draftKeep(field); // what was begun of an earlier text is of no use any more
}

document.addEventListener("input", (event) => {
  if (event.target.matches("[data-draft]")) draftKeep(event.target);
});
document.addEventListener("submit", (event) => {
  isSending = !event.defaultPrevented;
});
window.addEventListener("pageshow", () => (isSending = false));
window.addEventListener("beforeunload", (event) => {
  if (!isSending && [...document.querySelectorAll("[data-draft]")].some(isUnsaved)) event.preventDefault();
});

// --- Editing in place ------------------------------------------------------------------------------------------------

function sayOpen(place = sayField().value.length) {
  part("h1.caption").classList.add("visually-hidden"); // the page keeps its heading
  part("[data-say]").hidden = false;
  sayField().focus();
  sayField().setSelectionRange(place, place);
}

function sayClose() {
  sayField().value = sayField().defaultValue;
  draftKeep(sayField());
  part("[data-say-draft]").hidden = true;
  part("h1.caption").classList.remove("visually-hidden");
  part("[data-say]").hidden = true;
  part("[data-say-open]").focus();
}

/** How many characters of the heading are before the point that was clicked. */
function placeAt(event) {
  const heading = part("h1.caption");
  const caret = document.caretPositionFromPoint?.(event.clientX, event.clientY);
  if (!caret || !heading.contains(caret.offsetNode)) return undefined;
  const before = document.createRange();
  before.setStart(heading, 0);
  before.setEnd(caret.offsetNode, caret.offset);
  return before.toString().length;
}

document.addEventListener("click", (event) => {
  if (event.target.closest("[data-say-open]")) {
    event.preventDefault();
    sayOpen();
  } else if (event.target.closest("[data-say-cancel]")) sayClose();
  else if (event.target.closest("h1 .doubt")) {
    const doubts = [...document.querySelectorAll("h1 .doubt")];
    document.querySelectorAll("[data-next-words] button")[doubts.indexOf(event.target)].click();
  }
  // Where something is marked, somebody means to copy it.
  else if (event.target.closest("h1.caption") && getSelection().isCollapsed) sayOpen(placeAt(event));
});

document.addEventListener("keydown", (event) => {
  if (!event.target.matches("[data-draft]") || event.isComposing) return;
  const isSay = event.target === sayField();
  if (isSay && event.key === "Escape") sayClose();
  else if (event.key === "Enter" && (isSay || event.ctrlKey || event.metaKey)) event.target.form.requestSubmit();
  else return;
  event.preventDefault();
});

// --- A doubtful word: the model's next words there, each with the rest that follows from it ---------------------------

document.addEventListener("submit", async (event) => {
  const form = event.target;
  if (!form.matches("[data-next-words]")) return;
  event.preventDefault();
  isSending = false;
  announce("Looking for other words.");
  const body = new FormData(form, event.submitter);
  const answer = await fetch(form.action, { method: "POST", body, headers: { "X-Requested-With": "fetch" } }).catch(() => null);
  const page = new DOMParser().parseFromString(answer ? await answer.text() : "", "text/html");
  const fresh = page.querySelector("[data-choices]");
  if (!fresh) return announce("The server does not answer. Try again.");
  part("[data-choices]").replaceWith(document.adoptNode(fresh));
  announce(fresh.querySelector("p").textContent);
  fresh.querySelector("button")?.focus();
});

// What the form below saved is the caption now; what is being typed up here stays.
document.addEventListener("saved", (event) => {
  queueMicrotask(() => document.querySelectorAll("[data-draft]").forEach(draftKeep)); // once the form shows it
  if (isUnsaved(sayField())) return;
  const fresh = event.detail.querySelector("[data-said]");
  part("[data-said]").replaceWith(document.adoptNode(fresh));
  part(".result img").alt = sayField().value;
  document.title = event.detail.title;
  saidEnhance();
});

function saidEnhance() {
  part("h1.caption").dataset.editable = "";
  copyOffer(part("[data-said]"));
}

saidEnhance();
for (const field of document.querySelectorAll("[data-draft]")) draftRestore(field);
if (isUnsaved(sayField())) {
  sayOpen();
  part("[data-say-draft]").hidden = false;
}
