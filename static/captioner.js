// Makes the pages pleasanter; without this file every one of them still works.
"use strict";

const announce = (text) => {
  const status = document.querySelector("[data-announce]");
  if (status) status.textContent = text;
};

// --- Copying, and starting from one of the model's captions -----------------------------------------------------

function copyOffer(part) {
  if (!navigator.clipboard) return; // browsers hand it out on https and localhost only
  for (const button of part.querySelectorAll("[data-copy]")) button.hidden = false;
}

copyOffer(document);
document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copy]");
  if (!button) return;
  const label = (button.dataset.label ??= button.textContent);
  try {
    await navigator.clipboard.writeText(button.dataset.copy);
    button.textContent = "Copied";
    announce(`Copied: ${button.dataset.copy}`);
  } catch {
    button.textContent = "Not allowed";
    announce("The browser does not allow copying here.");
  }
  setTimeout(() => (button.textContent = label), 2000);
});

for (const link of document.querySelectorAll("[data-use]:not([data-say-open])")) {
  link.addEventListener("click", (event) => {
    event.preventDefault();
    const field = document.getElementById("id_ideal_caption");
    field.value = link.dataset.use;
    field.focus();
    field.setSelectionRange(field.value.length, field.value.length);
  });
}

// --- Feedback: saved in place, with the server's own rendering of what was saved ---------------------------------

let saving = null; // what a later save interrupts

const contentOf = (form) => new URLSearchParams(new FormData(form)).toString();

async function feedbackSave(form) {
  saving?.abort();
  saving = new AbortController();
  const answer = await fetch(form.action, { method: "POST", body: new FormData(form), signal: saving.signal });
  if (!answer.ok && answer.status !== 400) throw new Error(`The server answered ${answer.status}.`);
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  const fresh = page.getElementById("feedback");
  if (!fresh) throw new Error("The answer is not the caption's page.");
  return fresh;
}

function feedbackShow(fresh, sent) {
  const section = document.getElementById("feedback");
  const show = (part) => section.querySelector(part).replaceWith(document.adoptNode(fresh.querySelector(part)));
  show("[data-feedback-state]");
  section.dispatchEvent(new CustomEvent("saved", { bubbles: true, detail: fresh.ownerDocument }));
  // What was typed meanwhile stays, and is not said to be saved.
  if (contentOf(section.querySelector("form")) !== sent) return;
  const focused = document.activeElement.id;
  // The status stays in the document, because screen readers only tell changes of a region that was there before.
  const status = section.querySelector("[data-feedback-status]");
  const told = fresh.querySelector("[data-feedback-status]").textContent.trim();
  show("[data-feedback-fields]");
  status.textContent = told || section.querySelector(".errorlist")?.textContent || "";
  if (focused) document.getElementById(focused)?.focus();
}

document.addEventListener("submit", async (event) => {
  const form = event.target;
  if (!form.matches("[data-feedback]")) return;
  event.preventDefault();
  const sent = contentOf(form);
  try {
    feedbackShow(await feedbackSave(form), sent);
  } catch (error) {
    if (error.name === "AbortError") return;
    form.removeAttribute("data-feedback"); // the plain way tells what is wrong
    form.requestSubmit();
  }
});

// "Saved" is about what the form shows: it goes with the first change.
document.addEventListener("input", (event) => {
  const form = event.target.closest("[data-feedback]");
  if (form) form.querySelector("[data-feedback-status]").textContent = "";
});

// A rating is one gesture: a click or a touch saves it. Arrow keys only choose, and Enter saves.
document.addEventListener("click", (event) => {
  if (event.detail > 0 && event.target.matches("[data-feedback] [type=radio]")) event.target.form.requestSubmit();
});

// --- The worksheet: a row is saved when it is left ------------------------------------------------------------------

const rowOf = (element) => element.closest("[data-row]");
const fieldOf = (row) => row.querySelector("textarea");
const isTyped = (field) => field.value !== field.dataset.saved;

async function rowSave(row, { looked = true } = {}) {
  const field = fieldOf(row);
  const sent = field.value;
  if (sent === field.dataset.saved && (!looked || !row.querySelector(".sheet-fresh"))) return;
  const form = field.form;
  const told = row.querySelector("[data-told]");
  try {
    const answer = await fetch(form.action, {
      method: "POST",
      body: new FormData(form),
      headers: { "X-Requested-With": "fetch" },
      keepalive: true, // also of the row that was typed in when the page was left
    });
    if (!answer.ok && answer.status !== 400) throw new Error(`The server answered ${answer.status}.`);
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const fresh = page.querySelector("[data-row]");
    for (const part of ["[data-told]", "[data-candidates]"]) {
      row.querySelector(part).replaceWith(document.adoptNode(fresh.querySelector(part)));
    }
    if (answer.ok) {
      field.dataset.saved = fieldOf(fresh).dataset.saved;
      if (field.value === sent) field.value = field.dataset.saved; // what was typed meanwhile stays
    }
    rowEnhance(row);
  } catch {
    const problem = document.createElement("p");
    problem.className = "errorlist";
    problem.textContent = "Not saved: the server cannot be reached. It is tried again when you leave the row.";
    told.replaceChildren(problem);
    announce(problem.textContent);
  }
}

function rowEnhance(row) {
  const field = fieldOf(row);
  const doubts = row.querySelector(".sheet-doubts");
  if (doubts) doubts.hidden = field.value.trim() !== doubts.textContent.trim();
  row.querySelector("[data-save]").hidden = true;
  // Tab leads from caption to caption; the model's others are taken with Alt and an arrow key, or by a click.
  for (const element of row.querySelectorAll("a, [data-candidate]")) element.tabIndex = -1;
}

function candidateTake(row, step) {
  const field = fieldOf(row);
  const offered = [field.dataset.saved, ...[...row.querySelectorAll("[data-candidate]")].map((each) => each.dataset.candidate)];
  const place = Math.max(0, offered.indexOf(field.value));
  field.value = offered[(place + step + offered.length) % offered.length];
  rowEnhance(row);
  announce(field.value);
}

const sheet = document.querySelector("[data-sheet-rows]");
if (sheet) {
  for (const row of sheet.querySelectorAll("[data-row]")) rowEnhance(row);
  for (const hint of document.querySelectorAll("[data-enhanced]")) hint.hidden = false;
  sheet.addEventListener("focusout", (event) => {
    if (event.target.matches("textarea")) rowSave(rowOf(event.target));
  });
  sheet.addEventListener("input", (event) => rowEnhance(rowOf(event.target)));
  // Before the row is left, so that a click on a candidate is one save and not two.
  sheet.addEventListener("mousedown", (event) => {
    if (event.target.closest("[data-candidate]")) event.preventDefault();
  });
  sheet.addEventListener("click", (event) => {
    const candidate = event.target.closest("[data-candidate]");
    if (!candidate) return;
    event.preventDefault();
    const row = rowOf(candidate);
    fieldOf(row).value = candidate.dataset.candidate;
    rowSave(row);
  });
  sheet.addEventListener("keydown", (event) => {
    if (!event.target.matches("textarea")) return;
    const row = rowOf(event.target);
    if (event.altKey && ["ArrowDown", "ArrowUp"].includes(event.key)) candidateTake(row, event.key === "ArrowDown" ? 1 : -1);
    else if (event.key === "Escape") event.target.value = event.target.dataset.saved;
    else if (event.key === "Enter") {
      const rows = [...sheet.querySelectorAll("[data-row]")];
      const next = rows[rows.indexOf(row) + 1];
      if (next) fieldOf(next).focus();
      else rowSave(row);
    } else return;
    event.preventDefault();
    rowEnhance(row);
  });
  window.addEventListener("pagehide", () => {
    for (const row of sheet.querySelectorAll("[data-row]")) if (isTyped(fieldOf(row))) rowSave(row);
  });
  const copy = document.querySelector("[data-copy-all]");
  if (copy && navigator.clipboard) {
    copy.hidden = false;
    copy.addEventListener("click", async () => {
      const lines = [...sheet.querySelectorAll("[data-row]")].map((row) => {
        const name = row.querySelector(".sheet-name label").lastChild.textContent.trim();
        return `${name}\t${fieldOf(row).value.trim().replace(/\s+/g, " ")}`;
      });
      await navigator.clipboard.writeText(lines.join("\n"));
      copy.textContent = `Copied ${lines.length}`;
      announce(`Copied ${lines.length} captions with their file names.`);
      setTimeout(() => (copy.textContent = "Copy all"), 2000);
    });
  }
}

// --- A button that says it is busy -------------------------------------------------------------------------------

for (const form of document.querySelectorAll("form:not([data-feedback], [data-upload])")) {
  const button = form.querySelector("[data-busy]");
  if (!button) continue;
  let label = "";
  form.addEventListener("submit", (event) => {
    if (button.ariaDisabled === "true") return event.preventDefault(); // it is on its way
    label = button.textContent;
    button.ariaDisabled = "true";
    button.textContent = button.dataset.busy;
  });
  // Coming back with the browser's back button finds the page as it was left.
  window.addEventListener("pageshow", (event) => {
    if (!event.persisted || !label) return;
    button.ariaDisabled = null;
    button.textContent = label;
  });
}

// Keys for a form that has the focus: what says `data-key="1"` is pressed by 1.
document.querySelector("[data-keys]")?.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  event.currentTarget.querySelector(`[data-key="${CSS.escape(event.key)}"]`)?.click();
});
