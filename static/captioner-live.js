"use strict";

// --- What goes on by itself: parts with `data-live="SECONDS"` are fetched anew until the server sends them without --------

async function liveRefresh() {
  const seconds = [...document.querySelectorAll("[data-live]")].map((part) => Number(part.dataset.live)).filter(Boolean);
  if (!seconds.length) return;
  await new Promise((resolve) => setTimeout(resolve, 1000 * Math.min(...seconds)));
  try {
    const answer = document.hidden ? null : await fetch(location.href, { headers: { Accept: "text/html" } });
    if (answer?.ok) {
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      for (const part of document.querySelectorAll("[data-live]")) {
        const fresh = page.getElementById(part.id);
        if (!fresh?.dataset.live) return location.reload(); // it is over: the whole page says what came of it
        if (!part.contains(document.activeElement)) part.replaceWith(document.adoptNode(fresh));
      }
    }
  } catch {
    // The server restarts, or the network is away: the next look may find it again.
  }
  liveRefresh();
}

liveRefresh();
