// Keys for a form that has the focus: what says `data-key="1"` is pressed by 1. Without this everything is still a button.
document.querySelector("[data-keys]")?.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  event.currentTarget.querySelector(`[data-key="${CSS.escape(event.key)}"]`)?.click();
});
