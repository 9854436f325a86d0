"""Images of the sample person: a Blender scene built once, then moved for every frame."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bpy
import numpy as np
from camera import Camera
from hair import HairStyle, scalp_weights, strands
from head import Head, Points, Pose, Surface
from mathutils import Matrix, Vector

TO_BLENDER = np.array(
    [[1.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]]
)  # Y up, Z forward -> Z up, -Y forward

MESHES = ("body", "shirt", "eyes", "brows", "lashes", "teeth", "tongue")
OPAQUE = ("body", "shirt", "teeth", "tongue")
STRAND_RADIUS_DM = 0.0065
HAIR_COLOR = (0.075, 0.042, 0.025, 1.0)
SCALP_COLOR = (0.05, 0.03, 0.02, 1.0)
SHIRT_COLOR = (0.045, 0.085, 0.15, 1.0)


@dataclass(frozen=True)
class Quality:
    """Settings that determine the cost of a frame."""

    samples: int = 6
    bounces: int = 2
    threads: int = 1
    is_cut_out: bool = False  # no background: the alpha channel is the person's matte


MATTE = Quality(samples=64, bounces=0, is_cut_out=True)


class Nodes:
    """Shorthands for building a material."""

    def __init__(self, name: str) -> None:
        self.material = bpy.data.materials.new(name)
        self.material.use_nodes = True
        self.tree = self.material.node_tree
        self.shader = self.tree.nodes["Principled BSDF"]
        self.output = self.tree.nodes["Material Output"]

    def set(self, **inputs: Any) -> Nodes:
        """Set the principled shader's inputs; `Sheen_Weight` means `Sheen Weight`."""
        for name, value in inputs.items():
            self.shader.inputs[name.replace("_", " ")].default_value = value
        return self

    def image(self, path: Path) -> Any:
        """A texture node reading an image."""
        node = self.tree.nodes.new("ShaderNodeTexImage")
        node.image = bpy.data.images.load(str(path), check_existing=True)
        return node

    def link(self, source: Any, sink: Any) -> None:
        """Join two sockets."""
        self.tree.links.new(source, sink)

    def tinted(self, color: Any, **settings: float) -> Any:
        """The color through a hue/saturation/value node."""
        node = self.tree.nodes.new("ShaderNodeHueSaturation")
        for name, value in settings.items():
            node.inputs[name].default_value = value
        self.link(color, node.inputs["Color"])
        return node.outputs["Color"]


def skin_material(assets: Path) -> Any:
    """Skin: soft, a little translucent, a little uneven."""
    nodes = Nodes("skin").set(Roughness=0.48, Specular_IOR_Level=0.35)
    texture = nodes.image(assets / "skin/middleage_lightskinned_male_diffuse.png")
    tone = nodes.tinted(texture.outputs["Color"], Saturation=0.95, Value=1.0)
    scalp = nodes.tree.nodes.new("ShaderNodeAttribute")
    scalp.attribute_name = "scalp"
    mix = nodes.tree.nodes.new("ShaderNodeMixRGB")
    mix.inputs[2].default_value = SCALP_COLOR
    nodes.link(scalp.outputs["Fac"], mix.inputs[0])
    nodes.link(tone, mix.inputs[1])
    nodes.link(mix.outputs[0], nodes.shader.inputs["Base Color"])
    noise = nodes.tree.nodes.new("ShaderNodeTexNoise")
    noise.inputs["Scale"].default_value = 90.0
    coords = nodes.tree.nodes.new("ShaderNodeUVMap")
    nodes.link(coords.outputs["UV"], noise.inputs["Vector"])
    bump = nodes.tree.nodes.new("ShaderNodeBump")
    bump.inputs["Strength"].default_value = 0.08
    bump.inputs["Distance"].default_value = 0.02
    nodes.link(noise.outputs["Fac"], bump.inputs["Height"])
    nodes.link(bump.outputs["Normal"], nodes.shader.inputs["Normal"])
    return nodes.material


def hair_material() -> Any:
    """Dark brown hair, a little different from strand to strand."""
    nodes = Nodes("hair")
    hair = nodes.tree.nodes.new("ShaderNodeBsdfHairPrincipled")
    hair.parametrization = "COLOR"
    hair.inputs["Color"].default_value = HAIR_COLOR
    hair.inputs["Roughness"].default_value = 0.42
    hair.inputs["Radial Roughness"].default_value = 0.5
    nodes.link(hair.outputs[0], nodes.output.inputs["Surface"])
    return nodes.material


def flat_material() -> Any:
    """Opaque and quick to render, for mattes."""
    nodes = Nodes("flat")
    emission = nodes.tree.nodes.new("ShaderNodeEmission")
    nodes.link(emission.outputs[0], nodes.output.inputs["Surface"])
    return nodes.material


def plain_material(
    name: str, image: Path, roughness: float, specular: float = 0.4, **tint: float
) -> Any:
    """An opaque textured surface."""
    nodes = Nodes(name).set(Roughness=roughness, Specular_IOR_Level=specular)
    texture = nodes.image(image)
    nodes.link(nodes.tinted(texture.outputs["Color"], **tint), nodes.shader.inputs["Base Color"])
    return nodes.material


def cutout_material(
    name: str, image: Path, roughness: float, specular: float = 0.2, **tint: float
) -> Any:
    """A textured surface whose image's alpha cuts it out: brows, lashes, hair."""
    material = plain_material(name, image, roughness, specular, **tint)
    tree = material.node_tree
    texture = next(node for node in tree.nodes if node.type == "TEX_IMAGE")
    tree.links.new(texture.outputs["Alpha"], tree.nodes["Principled BSDF"].inputs["Alpha"])
    return material


def teeth_material(assets: Path) -> Any:
    """Teeth and gums, which glow a little: too few light bounces reach into the mouth."""
    material = plain_material(
        "teeth", assets / "mouth/teeth.png", 0.25, 0.5, Value=1.6, Saturation=0.75
    )
    tree = material.node_tree
    shader = tree.nodes["Principled BSDF"]
    tone = next(node for node in tree.nodes if node.type == "HUE_SAT")
    tree.links.new(tone.outputs["Color"], shader.inputs["Emission Color"])
    shader.inputs["Emission Strength"].default_value = 0.13
    return material


def eye_material(assets: Path) -> Any:
    """The eye's image under a clear, shiny film; the image is transparent at the cornea."""
    nodes = Nodes("eyes").set(Roughness=0.18, Specular_IOR_Level=0.5)
    texture = nodes.image(assets / "eyes/brown_eye.png")
    nodes.link(
        nodes.tinted(texture.outputs["Color"], Value=1.15, Saturation=0.7),
        nodes.shader.inputs["Base Color"],
    )
    clear = nodes.tree.nodes.new("ShaderNodeBsdfTransparent")
    gloss = nodes.tree.nodes.new("ShaderNodeBsdfGlossy")
    gloss.inputs["Roughness"].default_value = 0.08
    film = nodes.tree.nodes.new("ShaderNodeMixShader")
    film.inputs[0].default_value = 0.06
    nodes.link(clear.outputs[0], film.inputs[1])
    nodes.link(gloss.outputs[0], film.inputs[2])
    mix = nodes.tree.nodes.new("ShaderNodeMixShader")
    nodes.link(texture.outputs["Alpha"], mix.inputs[0])
    nodes.link(film.outputs[0], mix.inputs[1])
    nodes.link(nodes.shader.outputs[0], mix.inputs[2])
    nodes.link(mix.outputs[0], nodes.output.inputs["Surface"])
    return nodes.material


def shirt_material() -> Any:
    """Plain cloth with a fine weave and a soft sheen."""
    nodes = Nodes("shirt").set(
        Roughness=0.85, Specular_IOR_Level=0.15, Sheen_Weight=0.25, Base_Color=SHIRT_COLOR
    )
    noise = nodes.tree.nodes.new("ShaderNodeTexNoise")
    noise.inputs["Scale"].default_value = 2.2
    noise.inputs["Detail"].default_value = 3.0
    bump = nodes.tree.nodes.new("ShaderNodeBump")
    bump.inputs["Strength"].default_value = 0.6
    bump.inputs["Distance"].default_value = 0.12
    coords = nodes.tree.nodes.new("ShaderNodeTexCoord")
    nodes.link(coords.outputs["Object"], noise.inputs["Vector"])
    nodes.link(noise.outputs["Fac"], bump.inputs["Height"])
    nodes.link(bump.outputs["Normal"], nodes.shader.inputs["Normal"])
    return nodes.material


def materials(assets: Path) -> dict[str, Any]:
    """The material of every part."""
    return {
        "body": skin_material(assets),
        "eyes": eye_material(assets),
        "shirt": shirt_material(),
        "teeth": teeth_material(assets),
        "tongue": plain_material("tongue", assets / "mouth/tongue01_diffuse.png", 0.4, 0.4),
        "brows": cutout_material("brows", assets / "eyebrows/eyebrow001.png", 0.8),
        "lashes": cutout_material("lashes", assets / "eyelashes/eyelashes01.png", 0.8),
    }


class Scene:
    """The scene; `render(pose, path)` draws one frame."""

    def __init__(self, head: Head, assets: Path, camera: Camera, quality: Quality) -> None:
        bpy.ops.wm.read_factory_settings(use_empty=True)
        self.head = head
        rest = head.posed(Pose({}))
        self.objects = {
            name: self._add_mesh(name, head.surfaces[name], rest[name]) for name in MESHES
        }
        self.hair = add_hair(strands(head, HairStyle()))
        for name, material in materials(assets).items():
            self.objects[name].data.materials.append(material)
        self.hair.data.materials.append(hair_material())
        if quality.is_cut_out:
            self._flatten()
        self._mark_scalp()
        for name in ("body", "tongue"):
            modifier = self.objects[name].modifiers.new("smooth", "SUBSURF")
            modifier.levels = modifier.render_levels = 1
        add_camera(camera)
        add_backdrop()
        if not quality.is_cut_out:
            add_lights()
        set_quality(quality, camera.size_px)

    def render(self, pose: Pose, path: Path) -> None:
        """Write the frame as PNG, complete or not at all."""
        parts = self.head.posed(pose)
        for name, item in self.objects.items():
            item.data.vertices.foreach_set(
                "co", (parts[name] @ TO_BLENDER.T).astype(np.float32).ravel()
            )
            item.data.update()
        self._turn_hair(pose)
        unfinished = path.with_suffix(".part.png")
        bpy.context.scene.render.filepath = str(unfinished)
        bpy.ops.render.render(write_still=True)
        unfinished.rename(path)

    def _turn_hair(self, pose: Pose) -> None:
        """Turn the strands as one: they are where the head's turn is whole."""
        turn = TO_BLENDER @ pose.turn() @ TO_BLENDER.T
        pivot = TO_BLENDER @ self.head.pivot
        shift = pivot - turn @ pivot + TO_BLENDER @ np.array(pose.sway)
        self.hair.matrix_world = Matrix.Translation(Vector(shift)) @ Matrix(turn.tolist()).to_4x4()

    def _flatten(self) -> None:
        """Replace the materials that are opaque."""
        flat = flat_material()
        for item in (self.hair, *(self.objects[name] for name in OPAQUE)):
            item.data.materials[0] = flat

    def _mark_scalp(self) -> None:
        attribute = self.objects["body"].data.attributes.new("scalp", "FLOAT", "POINT")
        attribute.data.foreach_set("value", scalp_weights(self.head).astype(np.float32))

    @staticmethod
    def _add_mesh(name: str, surface: Surface, points: Points) -> Any:
        mesh = bpy.data.meshes.new(name)
        mesh.from_pydata((points @ TO_BLENDER.T).tolist(), [], surface.faces)
        layer = mesh.uv_layers.new(name="uv")
        layer.data.foreach_set("uv", np.array(surface.uvs, np.float32).ravel())
        mesh.polygons.foreach_set("use_smooth", [True] * len(mesh.polygons))
        item = bpy.data.objects.new(name, mesh)
        bpy.context.scene.collection.objects.link(item)
        return item


def read_image(path: Path) -> Points:
    """An image's stored values [H, W, 4], 0 to 1, from top to bottom."""
    image = bpy.data.images.load(str(path))
    width, height = image.size
    values = np.empty(width * height * 4, np.float32)
    image.pixels.foreach_get(values)
    bpy.data.images.remove(image)
    return np.asarray(values.reshape(height, width, 4)[::-1], np.float64)


def add_hair(points: Points) -> Any:
    """The strands [N, K, 3] as one hair object, thinner towards the tips."""
    n_strands, n_points, _ = points.shape
    data = bpy.data.hair_curves.new("hair")
    data.add_curves([n_points] * n_strands)
    data.attributes["position"].data.foreach_set(
        "vector", (points @ TO_BLENDER.T).astype(np.float32).ravel()
    )
    radius = np.tile(np.linspace(1.0, 0.35, n_points) * STRAND_RADIUS_DM, n_strands)
    data.attributes.new("radius", "FLOAT", "POINT").data.foreach_set(
        "value", radius.astype(np.float32)
    )
    item = bpy.data.objects.new("hair", data)
    bpy.context.scene.collection.objects.link(item)
    return item


def add_camera(camera: Camera) -> None:
    """Blender's camera with the same projection."""
    data = bpy.data.cameras.new("camera")
    data.sensor_width = 36.0
    data.lens = 36.0 * camera.focal_px / camera.size_px
    item = bpy.data.objects.new("camera", data)
    view = camera.viewmat()
    rotation = TO_BLENDER @ view[:3, :3].T @ np.diag([1.0, -1.0, -1.0])
    item.matrix_world = (
        Matrix.Translation(Vector(TO_BLENDER @ np.array(camera.eye)))
        @ Matrix(rotation.tolist()).to_4x4()
    )
    bpy.context.scene.collection.objects.link(item)
    bpy.context.scene.camera = item


def add_lights() -> None:
    """A large soft key light, a weak fill, a rim on the hair, and light from all around."""
    area_light("key", (-5.0, 11.5, 8.0), 4.5, 600.0, (1.0, 0.95, 0.88), glossy=True)
    area_light("fill", (6.5, 7.5, 7.0), 7.0, 150.0, (0.88, 0.94, 1.0), glossy=False)
    area_light("rim", (4.5, 11.5, -4.5), 3.0, 60.0, (1.0, 0.97, 0.92), glossy=True)
    area_light("chin", (0.0, 4.0, 7.0), 5.0, 60.0, (1.0, 0.95, 0.9), glossy=False)


def area_light(
    name: str,
    at: tuple[float, float, float],
    size_dm: float,
    power: float,
    color: tuple[float, float, float],
    glossy: bool,
) -> None:
    """A square lamp aimed at the face."""
    data = bpy.data.lights.new(name, "AREA")
    data.energy, data.size, data.color = power, size_dm, color
    item = bpy.data.objects.new(name, data)
    item.location = Vector(TO_BLENDER @ np.array(at))
    aim = Vector(TO_BLENDER @ np.array([0.0, 7.9, 1.0])) - item.location
    item.rotation_euler = aim.to_track_quat("-Z", "Y").to_euler()
    item.visible_glossy = glossy
    bpy.context.scene.collection.objects.link(item)


def add_backdrop() -> None:
    """A plain background, softly graded, that the camera sees; the person sees an even gray."""
    world = bpy.data.worlds.new("world")
    bpy.context.scene.world = world
    world.use_nodes = True
    nodes, links = world.node_tree.nodes, world.node_tree.links
    around = nodes["Background"]
    around.inputs["Color"].default_value = (0.62, 0.66, 0.72, 1.0)
    around.inputs["Strength"].default_value = 0.35
    window = nodes.new("ShaderNodeTexCoord")
    distance = nodes.new("ShaderNodeVectorMath")
    distance.operation = "DISTANCE"
    distance.inputs[1].default_value = (0.42, 0.62, 0.0)
    links.new(window.outputs["Window"], distance.inputs[0])
    ramp = nodes.new("ShaderNodeValToRGB")
    ramp.color_ramp.elements[0].color = (0.30, 0.36, 0.40, 1.0)
    ramp.color_ramp.elements[1].color = (0.10, 0.13, 0.155, 1.0)
    ramp.color_ramp.interpolation = "EASE"
    links.new(distance.outputs["Value"], ramp.inputs["Fac"])
    seen = nodes.new("ShaderNodeBackground")
    links.new(ramp.outputs["Color"], seen.inputs["Color"])
    path = nodes.new("ShaderNodeLightPath")
    mix = nodes.new("ShaderNodeMixShader")
    links.new(path.outputs["Is Camera Ray"], mix.inputs[0])
    links.new(around.outputs[0], mix.inputs[1])
    links.new(seen.outputs[0], mix.inputs[2])
    links.new(mix.outputs[0], nodes["World Output"].inputs["Surface"])


def set_quality(quality: Quality, size_px: int) -> None:
    """Path tracing on the CPU, denoised."""
    scene = bpy.context.scene
    scene.render.engine = "CYCLES"
    scene.render.resolution_x = scene.render.resolution_y = size_px
    scene.render.resolution_percentage = 100
    scene.render.image_settings.file_format = "PNG"
    scene.render.image_settings.color_mode = "RGBA" if quality.is_cut_out else "RGB"
    scene.render.image_settings.compression = 30
    scene.render.film_transparent = quality.is_cut_out
    scene.render.use_persistent_data = True
    scene.render.threads_mode, scene.render.threads = "FIXED", quality.threads
    scene.view_settings.view_transform = "Standard"
    cycles = scene.cycles
    cycles.device = "CPU"
    cycles.samples, cycles.use_adaptive_sampling = quality.samples, False
    cycles.use_denoising, cycles.denoiser = not quality.is_cut_out, "OPENIMAGEDENOISE"
    cycles.denoising_prefilter = "FAST"
    cycles.max_bounces = quality.bounces
    cycles.diffuse_bounces = cycles.glossy_bounces = min(2, quality.bounces)
    cycles.transparent_max_bounces = 16
    cycles.caustics_reflective = cycles.caustics_refractive = False
    cycles.pixel_filter_type, cycles.filter_width = "BLACKMAN_HARRIS", 1.5
