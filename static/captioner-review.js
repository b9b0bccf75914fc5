// Review by keys: decisions are sent while the next item is looked at already. Without this file every one is a form.
"use strict";

const review = document.querySelector("[data-review]");
const stage = review.querySelector("[data-review-shown]");
const switchBox = review.querySelector("[data-keys-switch]");
const leaves = "leaves" in review.dataset; // whether what is decided leaves the list
const start = Number(review.dataset.skip);
const LOADED = 3; // items whose photos are there before they are needed
const FEW = 16; // so few left, and more are asked for

const idOf = (item) => item.dataset.item;
const itemsIn = (page) => [
  ...page.querySelectorAll("[data-review-shown] [data-item]"),
  ...page.querySelector("[data-review-ahead]").content.querySelectorAll("[data-item]"),
];
const items = itemsIn(document); // in their order; what is decided leaves
const known = new Set(items.map(idOf));
const decided = []; // what this page decided on, for undo
let at = 0;
let unsent = 0;
let sending = Promise.resolve(); // one after the other, so that undo finds what it undoes
let filling = null;
let isAll = false;
let visible = null;

const current = () => items[at];
const count = (name, by) => {
  const place = review.querySelector(name);
  place.textContent = Math.max(0, Number(place.textContent) + by);
};
const tell = (text, isBad = false) => {
  const place = review.querySelector("[data-review-told]");
  place.hidden = false;
  place.textContent = text;
  place.classList.toggle("notice-error", isBad);
};

function load(item) {
  if (item.ownerDocument === document && item.isConnected) return;
  document.adoptNode(item); // from here on its photo is fetched
  item.hidden = true;
  stage.append(item);
  keysShow(item);
}

function show(place) {
  for (const other of stage.children) other.hidden = true;
  at = Math.min(Math.max(0, place), Math.max(0, items.length - 1));
  for (const item of items.slice(at, at + 1 + LOADED)) load(item);
  const item = current();
  if (item) item.hidden = false;
  if (item && item !== visible) item.focus({ preventScroll: true }); // whoever types in it goes on typing
  visible = item;
  const isDry = !item && isAll;
  review.querySelector("[data-review-empty]").hidden = !isDry;
  const [left, right] = ["ArrowLeft", "ArrowRight"].map((key) => review.querySelector(`[data-key="${key}"]`));
  if (left) left.hidden = at === 0 && start === 0;
  if (right) right.hidden = at >= items.length - 1;
  if (items.length - at < FEW) fill();
}

function fill() {
  if (filling || isAll) return;
  // What is decided and not saved yet would be counted as waiting.
  filling = sending.then(() => fetchPage({ skip: start + (leaves ? items.length : known.size) })).then((page) => {
    const fresh = itemsIn(page).filter((item) => !known.has(idOf(item)));
    isAll = fresh.length === 0 && unsent === 0;
    for (const item of fresh) known.add(idOf(item));
    items.push(...fresh);
  }).catch(() => tell("The next items could not be loaded. Is the network there?", true)).finally(() => {
    const wasWaiting = !current() || isAll;
    filling = null;
    if (wasWaiting) show(at);
  });
}

async function fetchPage(changes) {
  const address = new URL(location.href);
  for (const [name, value] of Object.entries(changes)) address.searchParams.set(name, value);
  const answer = await fetch(address);
  if (!answer.ok) throw new Error(`The server answered ${answer.status}.`);
  return new DOMParser().parseFromString(await answer.text(), "text/html");
}

function send(address, body) {
  unsent += 1;
  const answer = sending.then(() => fetch(address, { method: "POST", body, headers: { Accept: "application/json" } }));
  sending = answer.catch(() => null).then(() => (unsent -= 1));
  return answer;
}

function putBack(item, place) {
  items.splice(Math.min(place, items.length), 0, item);
  count("[data-left]", 1);
  count("[data-done]", -1);
  show(Math.min(place, items.length - 1));
}

async function decide(form, button) {
  const body = new FormData(form);
  body.set("action", button.value);
  if (button.value === "reject" && !body.has("reason")) return tell("Say why first: 1 to 4, or choose.", true);
  if (button.value === "edit" && !body.get("text").trim()) return tell("Write the caption first.", true);
  const item = form.closest("[data-item]");
  const place = items.indexOf(item);
  decided.push({ item, place });
  if (leaves) items.splice(place, 1);
  count("[data-left]", leaves ? -1 : 0);
  count("[data-done]", 1);
  show(leaves ? place : place + 1);
  try {
    const answer = await send(form.getAttribute("action"), body);
    if (![200, 400, 409].includes(answer.status)) throw new Error(`the server answered ${answer.status}`);
    tell((await answer.json()).told, !answer.ok);
    if (answer.ok) return;
  } catch (error) {
    tell(`Feedback ${idOf(item)} was not saved (${error.message}). It is here again.`, true);
  }
  decided.splice(decided.findIndex((each) => each.item === item), 1);
  if (!leaves) return count("[data-done]", -1);
  putBack(await again(item), place);
}

// As it is now: its author may have said something else meanwhile.
async function again(item) {
  try {
    const [fresh] = itemsIn(await fetchPage({ id: idOf(item), skip: 0 }));
    if (!fresh) return item;
    item.remove();
    return fresh;
  } catch {
    return item;
  }
}

async function undo(form) {
  let numbers = [];
  try {
    const answer = await send(form.getAttribute("action"), new FormData(form));
    const told = await answer.json();
    tell(told.told);
    numbers = told.numbers.map(String);
  } catch {
    return tell("Nothing was undone: the server did not answer.", true);
  }
  const last = decided.pop();
  if (!numbers.length) return;
  if (numbers.length !== 1 || !last || idOf(last.item) !== numbers[0]) return location.reload();
  if (!leaves) return show(last.place);
  for (const form of last.item.querySelectorAll("form")) form.reset();
  for (const more of last.item.querySelectorAll("details")) more.open = false;
  putBack(last.item, last.place);
}

document.addEventListener("submit", (event) => {
  const form = event.target;
  if (form.matches("[data-decide]")) decide(form, event.submitter ?? form.querySelector("button"));
  else if (form.matches("[data-undo]")) undo(form);
  else return;
  event.preventDefault();
});

document.addEventListener("click", (event) => {
  const link = event.target.closest('a[data-key^="Arrow"]');
  if (!link) return;
  const place = at + (link.dataset.key === "ArrowLeft" ? -1 : 1);
  if (place < 0) return; // the server knows what came before
  event.preventDefault();
  show(place);
});

// --- Keys -----------------------------------------------------------------------------------------------------

const STORED = "captioner-review-keys";
switchBox.checked = localStorage.getItem(STORED) !== "off";
review.querySelector("[data-keys-help]").hidden = false;

function keysShow(place) {
  for (const key of place.querySelectorAll("kbd")) key.hidden = !switchBox.checked && !key.closest("[data-keys-help]");
}

switchBox.addEventListener("change", () => {
  localStorage.setItem(STORED, switchBox.checked ? "on" : "off");
  keysShow(review);
});

const isTyping = (element) => element.matches("textarea, select, input:not([type=radio], [type=checkbox])");

function keyPress(key) {
  const open = current()?.querySelector('[data-open="r"][open]');
  const reason = open?.querySelector(`[data-reason="${CSS.escape(key)}"]`);
  if (reason) {
    reason.closest("label").querySelector("input").checked = true;
    open.querySelector("[data-enter]").click();
    return true;
  }
  const more = current()?.querySelector(`[data-open="${CSS.escape(key)}"]`);
  if (more) {
    more.open = true;
    const field = more.querySelector("[data-focus]");
    field.focus();
    if (isTyping(field)) field.setSelectionRange(field.value.length, field.value.length);
    return true;
  }
  if (key === "?") {
    const help = review.querySelector("[data-keys-help]");
    help.open = !help.open;
    if (help.open) help.scrollIntoView({ block: "nearest" });
    return true;
  }
  const button = (current() ?? review).querySelector(`[data-key="${CSS.escape(key)}"]`)
    ?? review.querySelector(`:is(form, nav) > [data-key="${CSS.escape(key)}"]:not([hidden])`);
  button?.click();
  return Boolean(button);
}

document.addEventListener("keydown", (event) => {
  const more = event.target.closest?.("[data-open]");
  if (event.key === "Escape" && more) {
    more.open = false;
    current().focus({ preventScroll: true });
  } else if (event.key === "Enter" && event.ctrlKey && more) {
    more.querySelector("[data-enter]").click();
  } else if (
    !switchBox.checked || event.ctrlKey || event.metaKey || event.altKey || event.repeat
    || (event.target instanceof Element && isTyping(event.target))
    || (event.key.startsWith("Arrow") && event.target instanceof Element && event.target.matches("[type=radio]"))
  ) {
    return;
  } else if (keyPress(event.key.length === 1 ? event.key.toLowerCase() : event.key)) {
    event.preventDefault();
  }
});

keysShow(review);
show(0);
