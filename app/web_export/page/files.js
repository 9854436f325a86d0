// The files of an export: on a server, or within the page itself. Each is compared with the manifest.

const FORMAT = "talkhead-web", VERSION = 1;
/** @type {Record<string, string>} */
const BLOB_TYPES = { mp4: "video/mp4", js: "text/javascript" };

/**
 * What the export consists of: see docs/web.md.
 * @typedef {object} Manifest
 * @property {string} format @property {number} version
 * @property {string} tool Name and version of talkhead.
 * @property {string} identity Name of the person.
 * @property {string | null} consent @property {boolean} live @property {string | null} live_consent
 * @property {number} width @property {number} height Pixels of the footage.
 * @property {number} frame_rate Per second.
 * @property {number} n_frames Of the footage, there and back.
 * @property {number[]} rest Code of the mouth at rest [nMouth].
 * @property {LineFiles[]} lines
 * @property {Record<string, {sha256: string, bytes: number}>} files
 *
 * @typedef {object} LineFiles
 * @property {string} name @property {string} sound @property {string} codes Names of the line and its files; of a
 * line that is given to `say`, the contents of its files in base64.
 * @property {number} n_frames
 * @property {number[]} scale Factor of each component of a code [nMouth].
 */

/** An error that the element shows. `code` is "missing", "damaged", "version", "unsupported", "line", "live", "microphone", "sound" or "broadcast". */
export class TalkingHeadError extends Error {
  /** @param {string} code @param {string} message */
  constructor(code, message) {
    super(message);
    this.code = code;
  }
}

export class Files {
  /** @type {Manifest} */
  manifest;
  /** @type {URL} folder on a server */
  base;
  /** @type {Record<string, string>} files in base64, if there is no such folder */
  packed;

  /**
   * Opens an export and reads its manifest.
   * @param {string} src folder of the export, or # and the ID of an element that holds its files in base64
   * @returns {Promise<Files>}
   */
  static async open(src) {
    const files = new Files();
    if (src.startsWith("#")) files.packed = JSON.parse(document.getElementById(src.slice(1)).textContent);
    else files.base = new URL(src.endsWith("/") ? src : `${src}/`, document.baseURI);
    const bytes = await files.read("manifest.json");
    try {
      files.manifest = JSON.parse(new TextDecoder().decode(bytes));
    } catch {
      throw new TalkingHeadError("damaged", "The file manifest.json is damaged. Export this person again.");
    }
    if (files.manifest?.format !== FORMAT || files.manifest.version !== VERSION) {
      throw new TalkingHeadError("version", "This export was made for another version of this page. Export this person again.");
    }
    return files;
  }

  constructor() {
    /** @type {string[]} */
    this.urls = [];
  }

  /** The address of a file: of the server, or of a copy in memory. @param {string} name */
  url(name) {
    if (this.base) return this.address(name);
    const url = URL.createObjectURL(new Blob([this.unpack(name)], { type: BLOB_TYPES[name.split(".").pop()] ?? "" }));
    this.urls.push(url);
    return url;
  }

  /** The address on the server, which differs for each export: browsers may keep files of an earlier one. @param {string} name */
  address(name) {
    const url = new URL(name, this.base), { sha256 } = this.manifest?.files[name] ?? {};
    if (sha256) url.search = sha256.slice(0, 12);
    return url.href;
  }

  /** The address of a module for audio, which Chromium does not load from a copy in memory for file://. @param {string} name */
  moduleUrl(name) { return this.base ? this.url(name) : `data:text/javascript;base64,${this.packed[name]}`; }

  /** The content of a file, if it is the one that was exported. @param {string} name @returns {Promise<ArrayBuffer>} */
  async bytes(name) {
    const wanted = this.manifest.files[name], bytes = await this.read(name);
    const found = wanted && bytes.byteLength === wanted.bytes ? await sha256(bytes) : "";
    if (found !== (found === null ? null : wanted?.sha256)) {
      throw new TalkingHeadError("damaged", `The file ${name} is damaged. Export this person again.`);
    }
    return bytes;
  }

  /** @param {string} name @returns {Promise<ArrayBuffer>} */
  async read(name) {
    if (!this.base) return this.unpack(name);
    let answer;
    try {
      answer = await fetch(this.address(name), this.manifest ? {} : { cache: "no-cache" });
    } catch {
      throw new TalkingHeadError("missing", `The file ${name} could not be loaded. Check the connection, and reload the page.`);
    }
    if (!answer.ok) throw new TalkingHeadError("missing", `The file ${name} could not be loaded (${answer.status}).`);
    return answer.arrayBuffer();
  }

  /** @param {string} name @returns {ArrayBuffer} */
  unpack(name) {
    if (!(name in this.packed)) throw new TalkingHeadError("missing", `The file ${name} is missing.`);
    return fromBase64(this.packed[name]);
  }

  /** Frees copies in memory. */
  close() { for (const url of this.urls.splice(0)) URL.revokeObjectURL(url); }
}

/** @param {string} text @returns {ArrayBuffer} */
export function fromBase64(text) { return Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)).buffer; }

/** In hexadecimal; null on a page that was not loaded safely, where browsers do not compute it. @param {ArrayBuffer} bytes */
async function sha256(bytes) {
  if (!globalThis.crypto?.subtle) return null;
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
