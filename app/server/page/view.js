// Small helpers: elements without HTML from strings, notices, dialogs, times.

export function $(id) { return document.getElementById(id); }

// Makes an element. Text is always text: names and messages come from elsewhere.
export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === false || value === null || value === undefined) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "value" || name === "max") element[name] = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  return put(element, ...children);
}

// Replaces the content of an element. Children that are null, false or "" are left out.
export function put(element, ...children) {
  element.replaceChildren(...children.filter((child) => child || child === 0));
  return element;
}

export function notify(text, { bad = false } = {}) {
  const notice = h("div", { class: bad ? "notice bad" : "notice", role: bad ? "alert" : null }, h("span", {}, text),
    h("button", { type: "button", "aria-label": "Close this message", onclick: () => notice.remove() }, "Close"));
  $("notices").replaceChildren(notice);
  notice.scrollIntoView({ block: "nearest" });
}

export function clearNotices() { $("notices").replaceChildren(); }

export function confirmDeletion(title, text) {
  const dialog = $("confirm");
  $("confirm-title").textContent = title;
  $("confirm-text").textContent = text;
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true }));
}

export function progressBar(object, label) {
  const waiting = object.status === "queued";
  return h("div", { class: "progress" },
    h("progress", { max: 100, value: object.progress, "aria-label": label }),
    h("span", { class: "meta" }, waiting ? "Waiting for its turn" : `${object.progress} % · ${object.stage || "Starting"}`));
}

export function emptyState(text, ...buttons) {
  return h("div", { class: "empty-state" }, h("p", {}, text), buttons.length ? h("div", { class: "actions" }, ...buttons) : null);
}

export function date(seconds) {
  if (!seconds) return "";
  return new Intl.DateTimeFormat("en", { dateStyle: "medium", timeStyle: "short" }).format(new Date(1000 * seconds));
}

export function duration(seconds) {
  const whole = Math.round(seconds);
  return whole < 60 ? `${whole} s` : `${Math.floor(whole / 60)} min ${whole % 60} s`;
}

export function size(bytes) { return bytes < 1e6 ? `${Math.ceil(bytes / 1e3)} kB` : `${(bytes / 1e6).toFixed(1)} MB`; }

export function isOpen(object) { return object.status === "queued" || object.status === "in_progress"; }

// Lets files be dropped on a label with a file input, and shows the chosen name.
export function dropArea(label, input, shown) {
  const empty = shown.textContent;
  const show = () => { shown.textContent = input.files.length ? `${input.files[0].name}, ${size(input.files[0].size)}` : empty; };
  input.addEventListener("change", show);
  input.form.addEventListener("reset", () => setTimeout(show));
  for (const name of ["dragover", "dragleave", "drop"]) {
    label.addEventListener(name, (event) => {
      event.preventDefault();
      label.classList.toggle("over", name === "dragover");
      if (name === "drop" && event.dataTransfer.files.length) { input.files = event.dataTransfer.files; show(); }
    });
  }
}
