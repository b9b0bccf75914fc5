// The form that photos are sent with: a row for each, sent one after the other. Without this file the form sends them all
// at once.
"use strict";

const MOST_PREVIEWS = 100; // a browser keeps the pixels of each
const sizeTold = (bytes) => `${Math.max(0.1, bytes / 2 ** 20).toFixed(1)} MB`;
const isArchive = (file) => /\.zip$/i.test(file.name);
const isPhoto = (file) => file.type.startsWith("image/") || /\.hei[cf]$/i.test(file.name);
const counted = (count, noun = "photo") => `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;

function post(address, fields, { onProgress, onRequest } = {}) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest(); // because fetch does not tell how much was sent
    const body = new FormData();
    body.append("csrfmiddlewaretoken", document.querySelector("[data-upload] [name=csrfmiddlewaretoken]").value);
    for (const [name, value] of Object.entries(fields)) body.append(name, value);
    const fail = (told, isFinal = false) => reject(Object.assign(new Error(told), { isFinal }));
    request.open("POST", address);
    request.responseType = "json";
    request.upload.addEventListener("progress", (event) => onProgress?.(event.loaded / event.total));
    request.addEventListener("load", () => {
      if (request.status < 300 && request.response) return resolve(request.response);
      const told = request.response?.detail ?? `The server's answer (${request.status}) was not understood. Load this page again.`;
      fail(told, [404, 413, 415, 422].includes(request.status)); // sent again, they would be refused again
    });
    request.addEventListener("error", () => fail("The connection broke off."));
    request.addEventListener("abort", () => fail("Cancelled."));
    request.send(body);
    onRequest?.(request);
  });
}

function uploadEnhance(form) {
  const part = (name) => form.querySelector(`[data-${name}]`);
  const [zone, list, button, status, sum] = ["dropzone", "previews", "submit", "upload-status", "upload-sum"].map(part);
  const input = zone.querySelector("input[type=file]");
  const most = {
    photos: Number(form.dataset.mostPhotos),
    bytes: Number(form.dataset.mostBytes),
    archive: Number(form.dataset.mostArchiveBytes),
    all: Number(form.dataset.mostAllBytes),
  };
  let entries = []; // of {place, file, row, state: waiting, sending, sent, failed or refused}
  let places = 0;
  let job = ""; // the address that takes the photos, once there is one
  let isBusy = false;
  let isLeaving = false;

  const those = (...states) => entries.filter((entry) => states.includes(entry.state));
  const tell = (text) => (status.textContent = text);

  function show() {
    list.hidden = entries.length === 0;
    zone.classList.toggle("has-photos", entries.length > 0);
    zone.querySelector(".dropzone-title").textContent = entries.length ? "Add photos" : "Choose photos";
    const bytes = entries.reduce((sum, entry) => sum + entry.file.size, 0);
    const sent = those("sent").length;
    sum.textContent = !entries.length ? "" : job ? `${sent} of ${entries.length} sent` : `${counted(entries.length, "file")}, ${sizeTold(bytes)}`;
    const isStuck = those("sent").length && !those("waiting", "sending").length && those("failed", "refused").length;
    const label = entries.length > 1 || (entries[0] && isArchive(entries[0].file)) ? "Write the captions" : "Write the caption";
    button.textContent = isBusy ? (those("waiting", "sending").length ? "Sending…" : "Looking…") : isStuck ? "Go on without them" : entries.length ? label : "Write the captions";
    button.ariaDisabled = isBusy ? "true" : null;
  }

  function stateShow(entry, state, told = "") {
    entry.state = state;
    entry.row.dataset.state = state;
    entry.row.querySelector(".sent-told").textContent = told || { waiting: sizeTold(entry.file.size), sending: "Sending…", sent: "Sent" }[state];
    entry.row.querySelector("progress").hidden = state !== "sending";
    entry.row.querySelector("[data-retry]").hidden = state !== "failed";
    const button = entry.row.querySelector("[data-remove]");
    button.textContent = state === "sending" ? "Cancel" : "Remove";
    button.ariaLabel = `${button.textContent}: ${entry.file.name}`;
    show();
  }

  function add(files) {
    const chosen = [...files].filter((file) => isPhoto(file) || isArchive(file));
    const others = files.length - chosen.length;
    if (!chosen.length) return tell("That was no photo.");
    const count = entries.length + chosen.length;
    const bytes = [...entries.map((entry) => entry.file), ...chosen].reduce((sum, file) => sum + file.size, 0);
    if (count > most.photos) {
      return tell(`These would be ${counted(count)}; at most ${counted(most.photos)} are taken at a time. Nothing was added or sent: take fewer, or send them in parts.`);
    }
    if (bytes > most.all) {
      return tell(`Together they have ${sizeTold(bytes)}; at most ${sizeTold(most.all)} are taken at a time. Nothing was added or sent: take fewer, or send them in parts.`);
    }
    for (const file of chosen) {
      const entry = { place: places++, file, row: rowMake(file), state: "waiting" };
      entries.push(entry);
      list.append(entry.row);
      const limit = isArchive(file) ? most.archive : most.bytes;
      const isLarge = file.size > limit;
      stateShow(entry, isLarge ? "refused" : "waiting", isLarge ? `${sizeTold(file.size)}: at most ${sizeTold(limit)} are taken. Send a smaller copy of it.` : "");
      entry.isTold = isLarge;
      entry.row.querySelector("[data-remove]").addEventListener("click", () => remove(entry));
      entry.row.querySelector("[data-retry]").addEventListener("click", () => {
        entry.isTold = false;
        stateShow(entry, "waiting");
        if (!isBusy) send();
      });
    }
    tell(`${counted(entries.length, "file")} chosen${others ? `; ${counted(others, "file")} left out, being no photo` : ""}`);
  }

  function rowMake(file) {
    const row = part("upload-row").content.firstElementChild.cloneNode(true);
    row.querySelector(".sent-name").textContent = file.name;
    row.querySelector("progress").ariaLabel = `${file.name}: sent`;
    row.querySelector("[data-retry]").ariaLabel = `Try again: ${file.name}`;
    const box = row.querySelector(".sent-photo");
    if (isArchive(file)) box.textContent = "ZIP";
    else if (entries.length < MOST_PREVIEWS) {
      const image = document.createElement("img");
      image.alt = "";
      image.src = URL.createObjectURL(file);
      image.addEventListener("load", () => URL.revokeObjectURL(image.src), { once: true });
      image.addEventListener("error", () => image.remove(), { once: true }); // HEIC, in most browsers
      box.append(image);
    }
    return row;
  }

  function remove(entry) {
    const next = entry.row.nextElementSibling ?? entry.row.previousElementSibling;
    entries = entries.filter((each) => each !== entry);
    entry.request?.abort();
    entry.row.remove();
    (next?.querySelector("[data-remove]") ?? input).focus();
    tell(`${entry.file.name} was taken out.`);
    show();
    if (!isBusy && those("sent").length && !those("failed", "refused").length) send();
  }

  async function send() {
    isBusy = true;
    show();
    try {
      job ||= (await post(form.dataset.upload, {})).job;
      for (let entry; (entry = those("waiting")[0]); ) await entrySend(entry);
      const missing = those("failed", "refused").filter((each) => !each.isTold);
      for (const entry of missing) entry.isTold = entry.state === "refused";
      if (missing.length || !those("sent").length) {
        return tell(`${counted(missing.length || entries.length, "file")} could not be sent. ${those("failed").length ? "Try again, or go on without them." : "Each says why."}`);
      }
      await finish();
    } catch (error) {
      tell(error.message);
    } finally {
      isBusy = isLeaving;
      show();
    }
  }

  async function entrySend(entry) {
    stateShow(entry, "sending");
    const bar = entry.row.querySelector("progress");
    bar.value = 0;
    const onProgress = (share) => {
      bar.value = share;
      entry.row.querySelector(".sent-told").textContent = share < 1 ? `${Math.round(100 * share)}% of ${sizeTold(entry.file.size)}` : "Arrived; being looked at…";
    };
    try {
      const answer = await post(`${job}/${entry.place}`, { image: entry.file }, { onProgress, onRequest: (request) => (entry.request = request) });
      stateShow(entry, "sent", answer.photos > 1 ? `Sent: ${counted(answer.photos)}` : "");
    } catch (error) {
      if (entries.includes(entry)) stateShow(entry, error.isFinal ? "refused" : "failed", error.message);
    }
  }

  async function finish() {
    tell("All is sent. The captions are being written.");
    const sent = those("sent").map((entry) => entry.place);
    isLeaving = true; // whatever becomes of this page now, the photos are captioned
    try {
      location.assign((await post(job, { places: sent.join(",") })).page);
    } catch (error) {
      isLeaving = false;
      throw error;
    }
  }

  form.noValidate = true;
  zone.classList.add("is-enhanced");
  for (const hint of form.querySelectorAll("[data-enhanced]")) hint.hidden = false;
  const take = (files) => {
    if (files.length && !isLeaving) add(files);
    if (job && !isBusy && those("waiting").length) send();
  };
  input.addEventListener("change", () => {
    take([...input.files]);
    input.value = ""; // or the same photo could not be chosen again
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (isBusy) return;
    if (!entries.length) return tell("Choose at least one photo first.");
    for (const entry of those("failed")) entry.isTold = true; // they go on without them
    send();
  });
  for (const type of ["dragenter", "dragover"]) {
    document.addEventListener(type, (event) => {
      if (!event.dataTransfer?.types.includes("Files")) return;
      event.preventDefault();
      zone.classList.add("is-over");
    });
  }
  document.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) zone.classList.remove("is-over");
  });
  document.addEventListener("drop", (event) => {
    if (!event.dataTransfer?.types.includes("Files")) return;
    event.preventDefault();
    zone.classList.remove("is-over");
    take([...event.dataTransfer.files]);
  });
  document.addEventListener("paste", (event) => take([...(event.clipboardData?.files ?? [])]));
  window.addEventListener("beforeunload", (event) => {
    if (isBusy && !isLeaving) event.preventDefault();
  });
  window.addEventListener("pagehide", () => {
    if (!job || isLeaving) return;
    const body = new FormData();
    body.append("csrfmiddlewaretoken", form.querySelector("[name=csrfmiddlewaretoken]").value);
    navigator.sendBeacon(`${job}/cancel`, body);
  });
  // Coming back with the browser's back button finds an empty form: what was sent is sent.
  window.addEventListener("pageshow", (event) => {
    if (event.persisted) location.reload();
  });
  if (input.files.length) take([...input.files]); // the browser kept them over a reload
}

for (const form of document.querySelectorAll("[data-upload]")) uploadEnhance(form);
