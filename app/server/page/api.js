// Calls of the API. The token comes from the address once, and stays in this tab.

const KEY = "talkhead-token";

export function takeToken() {
  const found = new URLSearchParams(location.hash.slice(1)).get("token");
  if (found) {
    sessionStorage.setItem(KEY, found);
    history.replaceState(null, "", location.pathname);
  }
}

export function token() { return sessionStorage.getItem(KEY) || ""; }

export function setToken(value) { sessionStorage.setItem(KEY, value.trim()); }

// Subprotocols for `new WebSocket(address, protocols("talkhead.live"))`: the browser can send no other header.
export function protocols(name) { return token() ? [name, `bearer.${token()}`] : [name]; }

export class ApiError extends Error {
  constructor(status, message) { super(message); this.status = status; }
}

function headers() { return token() ? { Authorization: `Bearer ${token()}` } : {}; }

let signIn = async () => false;
export function onUnauthorized(ask) { signIn = ask; }

export async function call(path, { method = "GET", body, type, retry = true } = {}) {
  let answer;
  try {
    answer = await fetch(path, { method, body, headers: type ? { ...headers(), "Content-Type": type } : headers() });
  } catch {
    throw new ApiError(0, "The server does not answer. Is talkhead serve still running?");
  }
  if (answer.status === 401 && retry && await signIn()) return call(path, { method, body, type, retry: false });
  if (!answer.ok) throw await problem(answer);
  return answer;
}

export async function json(path, options) {
  const answer = await call(path, options);
  return answer.status === 204 ? null : answer.json();
}

async function problem(answer) {
  let detail = "";
  try { detail = (await answer.json()).detail; } catch { /* not from the API */ }
  return new ApiError(answer.status, sentence(detail || `The server answered with ${answer.status}.`));
}

function sentence(text) { return text.charAt(0).toUpperCase() + text.slice(1); }

// Uploads a form. `progress` is called with the share that was sent, 0 to 1.
export function upload(path, form, progress) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", path);
    for (const [name, value] of Object.entries(headers())) request.setRequestHeader(name, value);
    request.upload.onprogress = (event) => event.lengthComputable && progress(event.loaded / event.total);
    request.onerror = () => reject(new ApiError(0, "The upload was interrupted. Check the connection, and try again."));
    request.onload = () => {
      let answer = {};
      try { answer = JSON.parse(request.responseText); } catch { /* not from the API */ }
      if (request.status < 300) resolve(answer);
      else reject(new ApiError(request.status, sentence(answer.detail || `The server answered with ${request.status}.`)));
    };
    request.send(form);
  });
}

// Reads server-sent events. An EventSource cannot be used, because it sends no token.
export async function follow(path, changed, signal) {
  const answer = await fetch(path, { headers: headers(), signal });
  if (!answer.ok) throw await problem(answer);
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    text += value;
    for (let end = text.indexOf("\n\n"); end >= 0; end = text.indexOf("\n\n")) {
      const lines = text.slice(0, end).split("\n");
      text = text.slice(end + 2);
      const data = lines.find((line) => line.startsWith("data: "));
      const name = lines.find((line) => line.startsWith("event: "));
      if (data && name) changed(JSON.parse(data.slice(6)), name.slice(7));
    }
  }
}
