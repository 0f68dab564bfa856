"""Which emoji the demo model learns to draw: clear single subjects (names as in data.py)."""

# Names are separated by "|" and by line ends; their order is the order of training pictures.
NAMES = """
dog face|cat face|fox|wolf|bear|panda|koala|tiger face|lion|cow face|pig face|frog|monkey face
rabbit face|mouse face|hamster|penguin|baby chick|owl|duck|eagle|bird|butterfly|honeybee
lady beetle|snail
spider|octopus|fish|tropical fish|blowfish|dolphin|spouting whale|shark|turtle|crab|lobster
horse face|unicorn|dragon face|elephant|giraffe|zebra|flamingo|parrot|t-rex|sauropod|hedgehog|bat
swan|crocodile|rooster|llama
red apple|green apple|pear|peach|cherries|strawberry|watermelon|banana|lemon|tangerine|pineapple
grapes|avocado|carrot|ear of corn|hot pepper|tomato|eggplant|broccoli|mushroom|pizza|hamburger
hot dog|french fries|taco
doughnut|cookie|cupcake|birthday cake|ice cream|soft ice cream|lollipop|egg|bread|croissant
pretzel|cheese wedge|sushi|hot beverage|beer mug|wine glass|cocktail glass|kiwi fruit|coconut
pancakes
sun|sun with face|crescent moon|full moon|star|rainbow|cloud|snowflake|snowman|fire|droplet
evergreen tree|palm tree|cactus|tulip|rose|sunflower|blossom|hibiscus|four leaf clover|maple leaf
volcano|ringed planet
globe showing europe-africa|water wave|rocket|airplane|sailboat|bicycle|automobile|bus|taxi
fire engine|police car|ambulance|locomotive|tractor|helicopter|flying saucer|house|castle|tent
balloon|wrapped gift|christmas tree
jack-o-lantern|crown|gem stone|ring|key|bell|light bulb|bomb|guitar|violin|drum|trumpet
soccer ball|basketball|tennis|baseball|trophy|umbrella|top hat|glasses|t-shirt|teddy bear|robot
ghost|alien|skull|pile of poo|clown face
camera|television|laptop|candle|hammer|scissors|pencil|anchor|magnet|microscope|red heart
orange heart|yellow heart|green heart|blue heart|purple heart|red circle|orange circle
yellow circle|green circle|blue circle|purple circle
smiling face with sunglasses|smiling face with heart-eyes|grinning face|loudly crying face
angry face|sleeping face|winking face|face with tears of joy|thinking face|nerd face
cowboy hat face|closed book|green book|blue book|orange book
""".strip().replace("\n", "|").split("|")


def indices(names):
    """Where each of NAMES stands in data.py's names (the first, where one occurs twice)."""
    at = {name: i for i, name in reversed(list(enumerate(names)))}
    return [at[name] for name in NAMES]
