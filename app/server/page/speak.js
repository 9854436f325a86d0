// Speak: what is said, how it looks, a still, the video, and all earlier ones.

import { call, follow, json, upload } from "./api.js";
import { startRecording } from "./recorder.js";
import { tryLine } from "./tryout.js";
import { $, clearNotices, confirmDeletion, date, dropArea, duration, emptyState, h, isOpen, notify, progressBar, put, size } from "./view.js";

const REFRESH_MS = 2000, PAGE = 10;
const PLAIN = ["height", "intensity", "expression", "blinks", "codec", "subtitles", "transcript", "loudness"];
const OF_HEAD = ["yaw", "pitch", "zoom", "head_motion", "fps"];

export function startSpeak(studio) {
  const form = $("speak-form"), stage = $("speak-stage"), fields = form.elements;
  let timer = 0, shown = PAGE, recording = null, recorded = null, following = null, still = "", current = "";
  dropArea($("speak-drop"), fields.audio, $("speak-file-name"));
  form.addEventListener("change", arrange);
  form.addEventListener("submit", (event) => { event.preventDefault(); submit(); });
  $("preview").addEventListener("click", preview);
  $("try").addEventListener("click", tryOut);
  $("record").addEventListener("click", record);
  $("more").addEventListener("click", () => { shown += PAGE; load(); });

  // ------------------------------------------------------------------------- form

  function arrange() {
    for (const one of form.querySelectorAll("[data-source]")) one.hidden = one.dataset.source !== fields.source.value;
    $("head-options").hidden = fields.mode.value !== "head";
    $("paste-options").hidden = fields.mode.value === "head";
    $("footage-end").hidden = fields.mode.value === "head" || fields.timeline.value !== "source";
    for (const one of form.querySelectorAll("[data-background]")) one.hidden = one.dataset.background !== fields.background_kind.value;
    if (fields.background_kind.value === "alpha" && !["prores", "vp9"].includes(fields.codec.value)) fields.codec.value = "vp9";
  }

  function look() {
    const data = new FormData();
    data.set("identity", fields.identity.value);
    data.set("mode", fields.mode.value);
    for (const name of PLAIN) if (fields[name].value.trim()) data.set(name, fields[name].value);
    if (fields.mode.value === "head") {
      for (const name of OF_HEAD) if (fields[name].value.trim()) data.set(name, fields[name].value);
      if (fields.drive_file.files.length) data.set("drive_file", fields.drive_file.files[0]);
    } else {
      data.set("timeline", fields.timeline.value);
      if (fields.timeline.value === "source") data.set("footage_end", fields.footage_end.value);
    }
    const kind = fields.background_kind.value;
    if (kind === "color") data.set("background", fields.background_color.value);
    else if (kind === "alpha" || (kind === "own" && fields.mode.value === "head")) data.set("background", kind);
    else if (kind === "file" && fields.background_file.files.length) data.set("background_file", fields.background_file.files[0]);
    return data;
  }

  function addSound(data) {
    const source = fields.source.value;
    if (source === "text") {
      if (!fields.text.value.trim()) return "Type the text first.";
      data.set("text", fields.text.value);
    } else {
      const file = source === "file" ? fields.audio.files[0] : recorded;
      const isDriven = source === "file" && data.has("drive_file");
      if (!file && !isDriven) return source === "file" ? "Choose a recording first." : "Record something first.";
      if (file) data.set("audio", file, file.name);
    }
    return fields.identity.value ? "" : "Fit a person first.";
  }

  async function submit() {
    const data = look(), wrong = addSound(data), button = form.querySelector("[type=submit]");
    if (wrong) { notify(wrong, { bad: true }); return; }
    clearNotices();
    button.disabled = true;
    try {
      const video = await upload("/v1/videos", data, () => {});
      current = video.id;
      drawCurrent(video);
      load();
      watch(video);
    } catch (error) {
      notify(error.message, { bad: true });
    } finally {
      button.disabled = false;
    }
  }

  async function tryOut() {
    const button = $("try"), sound = new FormData(), wrong = addSound(sound);
    if (wrong) { notify(wrong, { bad: true }); return; }
    clearNotices();
    button.disabled = true;
    current = "";
    try {
      await tryLine(stage, fields.identity.value, sound, (error) => notify(error.message, { bad: true }));
    } catch (error) {
      if (stage.querySelector(".try")) drawEmpty();
      notify(error.message, { bad: true });
    } finally {
      button.disabled = false;
    }
  }

  async function preview() {
    const button = $("preview"), data = look();
    for (const name of ["subtitles", "transcript", "loudness", "drive_file"]) data.delete(name);
    if (!fields.identity.value) { notify("Fit a person first.", { bad: true }); return; }
    clearNotices();
    button.disabled = true;
    button.textContent = "Rendering …";
    try {
      const answer = await call("/v1/previews", { method: "POST", body: data });
      URL.revokeObjectURL(still);
      still = URL.createObjectURL(await answer.blob());
      current = "";
      put(stage, h("h3", { "aria-level": 2 }, "A still"), h("img", { src: still, alt: `${fields.identity.value} with these options` }));
    } catch (error) {
      notify(error.message, { bad: true });
    } finally {
      button.disabled = false;
      button.textContent = "Show a still";
    }
  }

  // ------------------------------------------------------------------- microphone

  async function record() {
    const button = $("record"), state = $("record-state");
    try {
      if (!recording) {
        recording = await startRecording();
        button.textContent = "Stop";
        state.textContent = "Recording …";
        return;
      }
      button.disabled = true;
      recorded = await recording.stop();
      const player = $("record-audio");
      URL.revokeObjectURL(player.src);
      player.src = URL.createObjectURL(recorded);
      player.hidden = false;
      state.textContent = `Recorded, ${size(recorded.size)}`;
    } catch (error) {
      notify(error.name === "NotAllowedError" ? "The browser may not use the microphone. Allow it in the address bar." : error.message, { bad: true });
      state.textContent = "Nothing recorded";
    }
    recording = null;
    button.disabled = false;
    button.textContent = "Record again";
  }

  // ----------------------------------------------------------------------- videos

  async function watch(video) {
    following?.abort();
    following = new AbortController();
    try {
      await follow(`/v1/videos/${video.id}/events`, (found, event) => {
        if (current === video.id) event === "deleted" ? drawEmpty() : drawCurrent(found);
        if (event !== "progress") load();
      }, following.signal);
    } catch (error) {
      if (error.name !== "AbortError") notify("The connection was lost. The video is still being made: see below.", { bad: true });
    }
  }

  function drawEmpty() {
    put(stage, h("p", { class: "empty" }, "The video appears here. Try it to hear and see the line at once; a still shows how the video will look."));
  }

  function drawCurrent(video) {
    const done = video.status === "completed";
    put(stage, h("h3", { "aria-level": 2 }, `${video.identity}: ${video.title}`),
      isOpen(video) ? progressBar(video, `Video ${video.title}`) : null,
      video.error ? h("p", { class: "bad" }, video.error) : "",
      done ? player(video) : "", done ? facts(video) : "", buttons(video, video.title));
  }

  function player(video) {
    return h("video", { controls: true, playsinline: true, preload: "metadata", src: video.content_url, "aria-label": `${video.identity} says ${video.title}` });
  }

  function facts(video) {
    return h("p", { class: "meta" }, [duration(video.seconds), video.size.replace("x", " × "), size(video.bytes), ...video.notes].join(" · "));
  }

  function buttons(video, name) {
    return h("div", { class: "actions small" },
      video.content_url ? h("a", { class: "button", href: video.content_url, download: "" }, "Download") : null,
      video.subtitles_url ? h("a", { class: "button", href: video.subtitles_url, download: "" }, "Subtitles") : null,
      h("button", { type: "button", class: "danger", "aria-label": `${isOpen(video) ? "Cancel" : "Delete"} ${name}`, onclick: () => remove(video) }, isOpen(video) ? "Cancel" : "Delete"));
  }

  async function remove(video) {
    if (!isOpen(video) && !await confirmDeletion("Delete this video?", `${video.title} is deleted from the server. It cannot be undone.`)) return;
    try {
      await json(`/v1/videos/${video.id}`, { method: "DELETE" });
      if (current === video.id) { current = ""; drawEmpty(); }
    } catch (error) {
      if (error.status !== 404) notify(error.message, { bad: true });
    }
    load();
  }

  async function load() {
    clearTimeout(timer);
    let page;
    try {
      page = await json(`/v1/videos?limit=${Math.min(shown, 100)}`);
    } catch (error) {
      put($("videos"), emptyState(error.message, h("button", { type: "button", onclick: load }, "Try again")));
      return;
    }
    put($("videos"), ...(page.data.length ? page.data.map(row) : [emptyState("No videos yet.")]));
    $("more").hidden = !page.has_more || shown >= 100;
    if (page.data.some(isOpen) && !$("speak").hidden) timer = setTimeout(load, REFRESH_MS);
  }

  function row(video) {
    return h("article", { class: "panel row-item", "aria-label": video.title },
      h("div", { class: "row-head" }, h("h3", {}, video.title), h("span", { class: "meta" }, `${video.identity} · ${date(video.created_at)}`)),
      isOpen(video) ? progressBar(video, `Video ${video.title}`) : null,
      video.error ? h("p", { class: "bad" }, video.error) : null,
      video.status === "completed" ? facts(video) : null,
      h("div", { class: "actions small" },
        video.status === "completed" ? h("button", { type: "button", "aria-label": `Play ${video.title}`, onclick: () => play(video) }, "Play") : null,
        ...buttons(video, video.title).children));
  }

  function play(video) {
    current = video.id;
    drawCurrent(video);
    stage.scrollIntoView({ block: "nearest" });
    stage.querySelector("video").play();
  }

  // ------------------------------------------------------------------------- shown

  async function show(name) {
    arrange();
    if (!stage.childElementCount) drawEmpty();
    await studio.ready;
    $("source-text").hidden = !studio.features.includes("text");
    try {
      const people = (await studio.loadPeople()).filter((one) => one.status === "completed");
      const chosen = name || fields.identity.value || people.find((one) => one.is_default)?.name;
      put(fields.identity, ...people.map((one) => h("option", { value: one.name }, one.name)));
      if (people.some((one) => one.name === chosen)) fields.identity.value = chosen;
      for (const button of form.querySelectorAll("[type=submit], #preview, #try")) button.disabled = !people.length;
      if (!people.length) put(stage, emptyState("No person is fitted yet.",
        h("button", { type: "button", class: "primary", onclick: () => studio.open("fit") }, "Fit a person")));
    } catch (error) {
      notify(error.message, { bad: true });
    }
    load();
  }

  function hide() {
    clearTimeout(timer);
    if (stage.querySelector(".try")) drawEmpty(); // one that is being prepared would speak when it is ready
  }

  return { show, hide };
}
