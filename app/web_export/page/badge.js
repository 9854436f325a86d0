// The mark of synthetic pictures.

export const BADGE = "AI-generated";
const BADGE_HEIGHT = 0.035; // of the height of the picture

/** A picture that says how the person was made. @param {number} height of the pictures */
export function drawBadge(height) {
  const size = Math.max(9, Math.round(BADGE_HEIGHT * height)), pad = Math.max(3, Math.round(size / 4));
  const badge = document.createElement("canvas"), context = badge.getContext("2d"), font = `${size}px system-ui, sans-serif`;
  context.font = font;
  badge.width = Math.ceil(context.measureText(BADGE).width) + 2 * pad;
  badge.height = size + 2 * pad;
  context.fillStyle = "#0000008c";
  context.fillRect(0, 0, badge.width, badge.height);
  context.font = font;
  context.fillStyle = "#fff";
  context.textBaseline = "middle";
  context.fillText(BADGE, pad, badge.height / 2);
  return badge;
}
